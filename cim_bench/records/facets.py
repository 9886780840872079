"""Facets: what distinguishes the numbers of one protocol, and the names of their outcome columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Facets: TypeAlias = Mapping[str, str | int | float]
FacetKey: TypeAlias = tuple[tuple[str, str | int | float], ...]

CLEAN = "clean"  # the value of `attack`, `corruption` or `images` where nothing was changed
NAMELESS = "prediction"  # the outcome column of answers without facets

# Closed: a package of somebody else's writes a dot into the names of its own (``mypkg.stride``).
FACETS: Mapping[str, str] = {
    "k": "how many neighbours vote",
    "block": "after which block features were taken, counted from 1; absent for the network's last output",
    "attack": "what attacked the images; `CLEAN` for nothing",
    "eps": "largest change of a pixel (L-infinity), on the scale of [0, 1]",
    "corruption": "what corrupted the images; `CLEAN` for nothing",
    "severity": "how strongly, from 1 to 5",
    "images": "which images, where it is not the benchmark's own set: `CLEAN` for those that were not shifted",
    "classes": "how many classes the answers were chosen from",
    "mean": "what the number is a mean over",
    "window": "what a segmentation network is given of an image: `whole` or, every 341 pixels a window, `slide-341`",
}

_PAIRS = ({"corruption", "severity"}, {"images", "classes"})  # columns that join the two values by a hyphen


def check_facets(facets: Facets) -> None:
    """Refuse facets that nothing could select.

    Raises:
        ValueError: For an unknown name, listing the choices, or a value that is no text and no finite number.
    """
    for name, value in facets.items():
        check_facet_name(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"facet {name!r} is {value!r}, a {type(value).__name__}; give a text or a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"facet {name!r} is {value}; give a finite number")


def check_facet_name(name: str) -> None:
    """Refuse a name that is neither one of `FACETS` nor has a dot.

    Raises:
        ValueError: Listing the choices.
    """
    if name not in FACETS and "." not in name:
        raise ValueError(
            f"no facet is called {name!r}; choose one of {', '.join(FACETS)}, "
            f"or write a package's own with a dot, such as mypkg.{name or 'stride'}"
        )


def facet_key(facets: Facets) -> FacetKey:
    """Facets as something that can be looked up: sorted pairs, of which ``dict`` makes facets again."""
    return tuple(sorted(facets.items()))


def column_name(facets: Facets, settings: Mapping[str, Any]) -> str:
    """The name of an outcome column, which tables use as well; stable, so that kept outcomes are found again.

    ``prediction`` without facets; texts by their value alone, numbers as ``name=value``; ``fog-3``, ``clean-200``;
    an attack alone at the first size of the protocol, else ``pgd eps=2/255``.

    Args:
        facets: Of the answers, in any order.
        settings: The protocol's, for its first ``eps``.
    """
    known = list(FACETS)
    names = sorted(facets, key=lambda name: (known.index(name) if name in FACETS else len(known), name))
    if facets.keys() in _PAIRS:
        return "-".join(str(facets[name]) for name in names)
    return " ".join(filter(None, (_word(name, facets, settings) for name in names))) or NAMELESS


def _word(name: str, facets: Facets, settings: Mapping[str, Any]) -> str:
    value = facets[name]
    if isinstance(value, str):
        return value
    if name == "eps" and "attack" in facets:
        return "" if is_first_eps(value, settings) else f"eps={as_255(value)}"
    return f"{name}={value}"


def is_first_eps(eps: object, settings: Mapping[str, Any]) -> bool:
    """Whether a size of attacks is the first of a protocol that has several."""
    sizes = settings.get("eps")
    return isinstance(sizes, Sequence) and len(sizes) > 0 and bool(eps == sizes[0])


def as_255(value: float) -> str:
    """A value on the scale of [0, 1] in grey levels: ``1/255``, ``0.5/255``, ``2.66667/255``."""
    return f"{round(value * 255, 6):g}/255"
