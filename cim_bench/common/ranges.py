"""Ranges of settings: stated where a field is declared, checked when its dataclass is made.

A field says what it may hold in its annotation, in the words of the package ``annotated-types``::

    steps: Annotated[int, Ge(1)] = 5
    eps: Annotated[tuple[Annotated[float, Interval(gt=0, le=1)], ...], MinLen(1), Distinct()] = (1 / 255,)
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import reprlib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Interval, Le, Lt, MinLen, MultipleOf

KINDS: Mapping[Any, str] = {bool: "True or False", int: "an integer", float: "a number", str: "text"}

NUMBERS: Mapping[Any, type] = {int: numbers.Integral, float: numbers.Real}


@dataclass(frozen=True)
class Ascending(BaseMetadata):
    """Of a tuple: no value is below the one before it."""


@dataclass(frozen=True)
class Distinct(BaseMetadata):
    """Of a tuple: no value comes twice."""


Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
Rate = Annotated[float, Interval(ge=0, lt=1)]  # of dropping or smoothing: 1 would leave nothing
Pixels = Annotated[int, Interval(ge=1, le=8192)]  # a side of an image or of a part of it
CropPct = Annotated[float, Interval(ge=0.1, le=1)]  # of the resized short side that a centre crop keeps
Area = Annotated[float, Interval(ge=0.001, le=1)]
AreaRange = Annotated[tuple[Area, Area], Ascending()]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]


class Settings:
    """Base of frozen dataclasses of settings, and with it of every plug-in.

    When one is made, each value takes its declared type (2 becomes 2.0 in a float field, a list a tuple) and must lie
    in its declared range. Checks of several fields together go into ``__post_init__``, after that of ``super()``.

    Raises:
        ValueError: One sentence with setting, value and range.
    """

    def __post_init__(self) -> None:
        check(self, type(self).__name__)


def check(made: object, name: str) -> None:
    """Give every field of a dataclass its declared type, and check its range, also in the dataclasses that it holds.

    Args:
        made: The dataclass.
        name: What the sentence calls it.

    Raises:
        ValueError: One sentence with setting, value and range.
    """
    kind: Any = type(made)
    for field, declared in declarations(kind).items():
        value = getattr(made, field)
        fitting = fit(f"{name}.{field}", value, declared)
        if fitting is not value:
            object.__setattr__(made, field, fitting)


@functools.cache
def declarations(kind: Any) -> dict[str, Any]:
    """The annotation of every field of a dataclass, resolved."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def describe(declared: Any) -> str:
    """A declared type and its range in words.

    Examples:
        >>> describe(Annotated[float, Interval(gt=0, le=1)])
        'a number, above 0 and at most 1'
        >>> describe(Annotated[int, Ge(1)] | None)
        'an integer, at least 1, or None'
        >>> describe(Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1), Distinct()])
        'values, not empty and all different, each a number, above 0'
        >>> describe(AreaRange)
        '2 values, in ascending order, each a number, at least 0.001 and at most 1'
    """
    origin, args = get_origin(declared), get_args(declared)
    if origin is Annotated:
        bounds = " and ".join(_words(bound) for bound in _bounds(args[1:]))
        what, each, member = describe(args[0]).partition(
            ", each "
        )  # bounds of a tuple come before those of its members
        return f"{what}, {bounds}{each}{member}"
    if origin in (Union, types.UnionType):
        words = [describe(arg) for arg in args if arg is not type(None)]
        return " or ".join(words) + (", or None" if type(None) in args else "")
    if origin is Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if origin is tuple:
        return f"{'values' if args[-1] is Ellipsis else f'{len(args)} values'}, each {describe(args[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"names, each with {describe(args[1])}"
    return KINDS.get(declared, f"of type {getattr(declared, '__name__', declared)}")


def fit(name: str, value: Any, declared: Any) -> Any:
    """The value as its declared type; `value` itself if it is of that type already.

    Raises:
        ValueError: If it is not of that type, or out of range.
    """
    if isinstance(value, Settings):
        check(value, name)  # again: a plug-in may have a __post_init__ of its own that forgot ours
    origin, args = get_origin(declared), get_args(declared)
    if origin is Annotated:
        value = _fit_number(name, value, declared) if args[0] in NUMBERS else fit(name, value, args[0])
        if not all(_holds(bound, value) for bound in _bounds(args[1:])):
            raise _refusal(name, value, declared)
        return value
    if origin in (Union, types.UnionType):
        return _fit_one_of(name, value, args, declared)
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in args)
    elif origin is tuple:
        return _fit_tuple(name, value, args, declared)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        return _fit_mapping(name, value, args[1], declared)
    elif declared in NUMBERS:
        return _fit_number(name, value, declared)
    else:
        fits = not isinstance(declared, type) or isinstance(value, declared)
    if not fits:
        raise _refusal(name, value, declared)
    return value


def _fit_number(name: str, value: Any, declared: Any) -> int | float:
    kind: Any = get_args(declared)[0] if get_origin(declared) is Annotated else declared
    try:
        if isinstance(value, NUMBERS[kind]) and not isinstance(value, bool):
            number: int | float = kind(value)
            if kind is int or math.isfinite(number):
                return number
    except OverflowError:  # an integer beyond all floats
        pass
    raise _refusal(name, value, declared)


def _fit_one_of(name: str, value: Any, members: Sequence[Any], declared: Any) -> Any:
    if value is None and type(None) in members:
        return None
    for member in members:
        try:
            return fit(name, value, member)
        except ValueError:
            continue
    raise _refusal(name, value, declared)


def _fit_tuple(name: str, value: Any, members: Sequence[Any], declared: Any) -> Any:
    if not isinstance(value, tuple | list):
        raise _refusal(name, value, declared)
    kinds = [members[0]] * len(value) if members[-1] is Ellipsis else list(members)
    if len(kinds) != len(value):
        raise _refusal(name, value, declared)
    items = tuple(fit(f"{name}[{i}]", item, kind) for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))
    same = isinstance(value, tuple) and all(new is old for new, old in zip(items, value, strict=True))
    return value if same else items


def _fit_mapping(name: str, value: Any, member: Any, declared: Any) -> Any:
    if not isinstance(value, Mapping):
        raise _refusal(name, value, declared)
    items = {key: fit(f"{name}.{key}", item, member) for key, item in value.items()}
    return value if all(items[key] is value[key] for key in items) else items


def _refusal(name: str, value: object, declared: Any) -> ValueError:
    return ValueError(f"{name} is {reprlib.repr(value)}; it must be {describe(declared)}")


def _bounds(metadata: Iterable[object]) -> list[object]:
    """The single bounds among the metadata of an annotation."""
    found: list[object] = []
    for item in metadata:
        found += list(item) if isinstance(item, GroupedMetadata) else [item] if isinstance(item, BaseMetadata) else []
    return found


def _holds(bound: Any, value: Any) -> bool:
    match bound:
        case Ge(least):
            return bool(value >= least)
        case Gt(least):
            return bool(value > least)
        case Le(most):
            return bool(value <= most)
        case Lt(most):
            return bool(value < most)
        case MultipleOf(divisor):
            return bool(value % divisor == 0)
        case MinLen(least):
            return len(value) >= least
        case Ascending():
            return list(value) == sorted(value)
        case Distinct():
            return len(set(value)) == len(value)
    raise TypeError(f"settings cannot be checked for {bound}")  # our own mistake, or a plug-in's


def _words(bound: Any) -> str:
    match bound:
        case Ge(limit):
            return f"at least {limit}"
        case Gt(limit):
            return f"above {limit}"
        case Le(limit):
            return f"at most {limit}"
        case Lt(limit):
            return f"below {limit}"
        case MultipleOf(divisor):
            return f"a multiple of {divisor}"
        case MinLen(least):
            return f"{least} or more long" if least > 1 else "not empty"
        case Ascending():
            return "in ascending order"
        case Distinct():
            return "all different"
    return str(bound)
