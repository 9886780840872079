"""Settings say their ranges where they are declared, and are checked when they are made."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
from annotated_types import Ge, Gt, Interval, MaxLen, MinLen, MultipleOf
from hypothesis import given
from hypothesis import strategies as st

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.common.ranges import Ascending, Distinct, Settings, describe
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.spec import Arch, Data, Training


@dataclass(frozen=True, kw_only=True)
class Inner(Settings):
    depth: Annotated[int, Ge(1)] = 1


@dataclass(frozen=True, kw_only=True)
class Outer(Settings):
    """One field of each kind."""

    count: Annotated[int, Interval(ge=1, le=8)] = 1
    width: Annotated[int, MultipleOf(4)] = 8
    rate: Annotated[float, Gt(0)] | None = None
    span: Annotated[tuple[float, float], Ascending()] = (0.0, 1.0)
    ks: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1), Distinct()] = (1,)
    kind: Literal["a", "b"] = "a"
    on: bool = False
    text: str = ""
    options: Mapping[str, int | float | str] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"count": 0}, "Outer.count is 0; it must be an integer, at least 1 and at most 8"),
        ({"count": 9}, "Outer.count is 9; it must be an integer, at least 1 and at most 8"),
        ({"count": True}, "Outer.count is True; it must be an integer, at least 1 and at most 8"),
        ({"count": "1"}, "Outer.count is '1'; it must be an integer, at least 1 and at most 8"),
        ({"count": 1.0}, "Outer.count is 1.0; it must be an integer, at least 1 and at most 8"),
        ({"count": None}, "Outer.count is None; it must be an integer, at least 1 and at most 8"),
        ({"width": 6}, "Outer.width is 6; it must be an integer, a multiple of 4"),
        ({"rate": 0}, "Outer.rate is 0; it must be a number, above 0, or None"),
        ({"rate": math.nan}, "Outer.rate is nan; it must be a number, above 0, or None"),
        ({"rate": math.inf}, "Outer.rate is inf; it must be a number, above 0, or None"),
        ({"rate": "0.5"}, "Outer.rate is '0.5'; it must be a number, above 0, or None"),
        ({"span": (1, 0)}, "Outer.span is (1.0, 0.0); it must be 2 values, in ascending order, each a number"),
        ({"span": (1,)}, "Outer.span is (1,); it must be 2 values, each a number"),
        ({"span": (0, -math.inf)}, "Outer.span[1] is -inf; it must be a number"),
        ({"span": 1.0}, "Outer.span is 1.0; it must be 2 values, each a number"),
        (
            {"ks": ()},
            "Outer.ks is (); it must be values, not empty and all different, each an integer, at least",
        ),
        ({"ks": (5, 5)}, "Outer.ks is (5, 5); it must be values, not empty and all different"),
        ({"ks": (5, 0)}, "Outer.ks[1] is 0; it must be an integer, at least 1"),
        ({"kind": "c"}, "Outer.kind is 'c'; it must be one of 'a', 'b'"),
        ({"on": 1}, "Outer.on is 1; it must be True or False"),
        ({"text": 1}, "Outer.text is 1; it must be text"),
        ({"options": {"x": None}}, "Outer.options.x is None; it must be an integer or a number or text"),
        ({"options": 3}, "Outer.options is 3; it must be names, each with an integer or a number or text"),
        ({"inner": 3}, "Outer.inner is 3; it must be of type Inner"),
    ],
)
def test_a_value_that_does_not_fit_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)) as caught:
        Outer(**change)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        replace(Outer(), **change)


def test_an_integer_beyond_all_floats_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"rate is 1000.*0000; it must be a number"):
        Outer(rate=10**400)


def test_values_take_their_declared_type() -> None:
    made = Outer(rate=2, span=[0, 1], ks=[3, 4], count=np.int64(5), options={"x": 1, "y": 1.0})  # type: ignore[arg-type]
    assert repr((made.rate, made.span, made.ks, made.count)) == "(2.0, (0.0, 1.0), (3, 4), 5)"
    assert repr(made.options) == "{'x': 1, 'y': 1.0}"
    assert type(Outer(rate=Fraction(1, 2)).rate) is type(Outer(rate=np.float32(0.5)).rate) is float  # type: ignore[arg-type]


@given(st.integers(-(2**53), 2**53))
def test_an_integer_is_the_float_that_it_equals(value: int) -> None:
    made = Training(epochs=1, effective_batch=1, base_lr=1, weight_decay=min(10, abs(value)))
    assert made == Training(epochs=1, effective_batch=1, base_lr=1.0, weight_decay=float(min(10, abs(value))))
    assert isinstance(made.weight_decay, float)


def test_bounds_are_told_in_words() -> None:
    assert describe(Annotated[float, Interval(ge=0, lt=1)]) == "a number, at least 0 and below 1"
    assert describe(Literal["x", 3]) == "one of 'x', 3"


@dataclass(frozen=True, kw_only=True)
class Forgetful(Evaluator):
    """A plug-in whose ``__post_init__`` forgot its base's."""

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"
    bins: Annotated[int, Ge(1)] = 1
    scale: float = 1.0

    def __post_init__(self) -> None:
        pass

    def run(self, model: Any, ctx: Any) -> Iterator[Any]:
        yield from ()


def test_a_benchmark_checks_what_a_plug_in_forgot() -> None:
    given_: dict[str, Any] = {
        "name": "toy",
        "subjects": {"random": RandomInit(arch=Arch(name="vit_tiny_patch16_224"))},
        "data": Data(name="toy", root="somewhere"),
    }
    made = Benchmark(evaluators={"mine": Forgetful(scale=2)}, **given_)
    assert repr(made.evaluators["mine"]) == "Forgetful(bins=1, scale=2.0)"
    with pytest.raises(ValueError, match=r"^Benchmark\.evaluators\.mine\.bins is 0; it must be an integer, at least 1"):
        Benchmark(evaluators={"mine": Forgetful(bins=0)}, **given_)
    with pytest.raises(ValueError, match=r"^Benchmark\.evaluators\.mine is 3; it must be of type Evaluator"):
        Benchmark(evaluators={"mine": 3}, **given_)


def test_a_bound_that_nobody_checks_is_an_error() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Odd(Settings):
        text: Annotated[str, MaxLen(3)] = ""

    with pytest.raises(TypeError, match=r"cannot be checked for MaxLen"):
        Odd()
