"""Every field of every settings dataclass has a range, and refuses what lies outside of it."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt
from hypothesis import given
from hypothesis import strategies as st

from cim_bench import registry
from cim_bench.benchmark import Benchmark, Pretraining, RandomInit
from cim_bench.common.ranges import Settings, declarations
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine, Training

SPEC: tuple[type[Settings], ...] = (
    Arch,
    Data,
    Training,
    Machine,
    FromCheckpoint,
    Pretraining,
    RandomInit,
    Benchmark,
)
PLUG_INS: tuple[type[Settings], ...] = tuple(
    registry.load(target)
    for group in ("pretexts", "evaluators", "executors")
    for target in registry.GROUPS[group].values()
    if "robustbench" not in target
)


def settings_in(value: object) -> Iterator[Settings]:
    """The settings of a recipe, and all that they hold."""
    if isinstance(value, Settings):
        yield value
        yield from settings_in(vars(value))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from settings_in(item)


MADE: list[Settings] = [
    *(kind() for kind in (*PLUG_INS, Arch, Data, Machine, FromCheckpoint)),
    *{repr(s): s for name in registry.RECIPES for s in settings_in(registry.load_recipe(name))}.values(),
]


def numbers_of(declared: Any, bounds: tuple[Any, ...] = ()) -> Iterator[tuple[Any, list[Any]]]:
    """The numeric types in an annotation, each with its bounds."""
    origin, args = get_origin(declared), get_args(declared)
    if origin is Annotated:
        flat = [b for item in args[1:] for b in (item if isinstance(item, GroupedMetadata) else (item,))]
        yield from numbers_of(args[0], tuple(flat))
    elif declared in (int, float):
        yield declared, [b for b in bounds if isinstance(b, Ge | Gt | Le | Lt)]
    elif origin in (Union, types.UnionType, tuple):
        for arg in args:
            yield from numbers_of(arg)


@pytest.mark.parametrize("kind", [*SPEC, *PLUG_INS], ids=lambda kind: kind.__name__)
def test_every_number_declares_a_range(kind: type[Settings]) -> None:
    """All fields but the options of timm's networks, whose ranges are those of their names."""
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    for name, declared in declarations(kind).items():
        for number, bounds in numbers_of(declared):
            assert any(isinstance(bound, Ge | Gt) for bound in bounds), f"{kind.__name__}.{name}: {number}"


def outside(declared: Any) -> st.SearchStrategy[Any]:
    """Values that an annotation does not allow: of another type, out of range, or with one such member."""
    origin, args = get_origin(declared), get_args(declared)
    if origin is Annotated:
        flat = [b for item in args[1:] for b in (item if isinstance(item, GroupedMetadata) else (item,))]
        return st.one_of(outside(args[0]), *(beyond(bound, args[0]) for bound in flat))
    if origin in (Union, types.UnionType):
        (member,) = [arg for arg in args if arg is not type(None)]
        return outside(member).filter(lambda value: value is not None)
    if origin is tuple:
        bad = outside(args[0])
        return (
            bad.map(lambda value: (value,)) | bad.map(lambda value: (value, value)) | st.sampled_from([3, "ab", None])
        )
    if origin is Literal:
        return st.text().filter(lambda text: text not in args) | st.none()
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return st.sampled_from([3, None, {"x": None}, {"x": object()}])
    if declared is float:
        return st.sampled_from([math.nan, math.inf, -math.inf, True, "1", None, 10**400])
    if declared is int:
        return st.sampled_from([0.5, 1.0, math.nan, math.inf, False, "1", None])
    if declared is bool:
        return st.sampled_from([0, 1, "True", None])
    return st.sampled_from([3, 0.5, None, ()])


def beyond(bound: Any, kind: Any) -> st.SearchStrategy[Any]:
    """Values of the right type on the wrong side of a bound; of those of a tuple, the empty tuple."""
    numbers = st.integers if kind is int else st.floats
    options = {} if kind is int else {"allow_nan": False, "allow_infinity": False}
    match bound:
        case Ge(least):
            return numbers(max_value=least, **options).filter(lambda value: value < least)
        case Gt(least):
            return numbers(max_value=least, **options)
        case Le(most):
            return numbers(min_value=most, **options).filter(lambda value: value > most)
        case Lt(most):
            return numbers(min_value=most, **options)
    return st.nothing()


@given(st.data())
@pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)
def test_no_field_takes_a_value_outside_its_range(made: Settings, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(made)]))  # type: ignore[arg-type]
    declared = declarations(type(made))[name]
    if get_origin(declared) in (Union, types.UnionType) and Data in get_args(declared):
        value: Any = 3
    else:
        value = data.draw(outside(declared))
    with pytest.raises(ValueError, match=rf"^{type(made).__name__}\.{name}\b.* is .*; it must be "):
        dataclasses.replace(made, **{name: value})  # type: ignore[type-var]
