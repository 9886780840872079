"""Numbers that follow from recorded ones: pure functions, no records and no files."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import sqrt
from statistics import NormalDist


def wilson_interval(value: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Unlike the normal approximation it stays inside [0, 1] and keeps its coverage near 0 and 1.

    Args:
        value: Observed fraction of successes, in [0, 1].
        n: Samples the fraction rests on, at least 1.
        confidence: Two-sided coverage, in (0, 1).

    Returns:
        Lower and upper bound as fractions, with ``0 <= low <= value <= high <= 1``.

    Raises:
        ValueError: If an argument is outside its range.

    Source:
        E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
        Journal of the American Statistical Association 22 (158), 1927, pp. 209-212.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"a proportion lies in [0, 1], not {value}")
    if n < 1:
        raise ValueError(f"an interval needs at least one sample, not n={n}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence lies strictly between 0 and 1, not {confidence}")
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    shrink = 1.0 + z * z / n
    center = (value + z * z / (2.0 * n)) / shrink
    half = z * sqrt(value * (1.0 - value) / n + z * z / (4.0 * n * n)) / shrink
    # The bounds hold exactly in real arithmetic; min and max only undo rounding.
    return min(value, max(0.0, center - half)), max(value, min(1.0, center + half))


def best_of(values: Sequence[float | None], groups: Sequence[Hashable], higher_is_better: bool) -> list[bool]:
    """Which values are the best of their group; ties are all best, ``None`` and lone values never are.

    Args:
        values: Numbers in any one unit, ``None`` for a gap.
        groups: The group of each value; only values of one group are compared.
        higher_is_better: Direction of the metric.

    Raises:
        ValueError: If `values` and `groups` differ in length.
    """
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        if value is not None:
            members.setdefault(group, []).append(value)
    pick = max if higher_is_better else min
    best = {group: pick(found) for group, found in members.items() if len(found) > 1}
    return [value is not None and value == best.get(group) for value, group in zip(values, groups, strict=True)]
