"""Numbers that follow from recorded ones: pure functions, no records and no files."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import sqrt
from statistics import NormalDist

from cim_bench.reports.stats.arrays import Floats


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

    >>> [round(bound, 3) for bound in wilson_interval(0.5, 100)]
    [0.404, 0.596]
    >>> wilson_interval(0.0, 10)[0]
    0.0
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


def mean_interval(values: Floats, total: int | None = None, confidence: float = 0.95) -> tuple[float, float]:
    """Normal interval of the mean of independent values, for the tens of samples and more that make it hold.

    Args:
        values: One number a sample, at least two.
        total: Size of the finite population, if the values are a random part of one and the interval is for its
            mean; the standard error then shrinks by ``sqrt(1 - n / total)``, to nothing where all were measured.
        confidence: Two-sided coverage, in (0, 1).

    Returns:
        Lower and upper bound, in the unit of the values.

    Raises:
        ValueError: If there are fewer than two values, or more than `total`.

    Source:
        W. G. Cochran, "Sampling Techniques", 3rd edition, 1977, section 2.5 and theorem 2.2.
    """
    n = values.size
    if n < 2:
        raise ValueError(f"an interval of a mean needs at least two samples, not {n}")
    if total is not None and n > total:
        raise ValueError(f"{n} samples cannot be a part of {total}")
    remaining = 1.0 if total is None else 1.0 - n / total
    mean = float(values.mean())
    half = NormalDist().inv_cdf((1.0 + confidence) / 2.0) * sqrt(remaining * float(values.var(ddof=1)) / n)
    return mean - half, mean + half


def best_of(values: Sequence[float | None], groups: Sequence[Hashable], higher_is_better: bool) -> list[bool]:
    """Which values are the best of their group; ties are all best, ``None`` and lone values never are.

    Args:
        values: Numbers in any one unit, ``None`` for a gap.
        groups: The group of each value; only values of one group are compared.
        higher_is_better: Direction of the metric.

    Raises:
        ValueError: If `values` and `groups` differ in length.

    >>> best_of([0.7, 0.8, None, 0.9], ["vit", "vit", "vit", "cnn"], higher_is_better=True)
    [False, True, False, False]
    """
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        if value is not None:
            members.setdefault(group, []).append(value)
    pick = max if higher_is_better else min
    best = {group: pick(found) for group, found in members.items() if len(found) > 1}
    return [value is not None and value == best.get(group) for value, group in zip(values, groups, strict=True)]
