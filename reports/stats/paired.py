"""Differences between two models on the same images: paired tests and intervals; no records and no files."""

from __future__ import annotations

import warnings
from math import exp, lgamma, log

import numpy as np

from cim_bench.reports.stats.arrays import Flags, Floats

DRAWS = 10_000
_TAILS = (2.5, 97.5)  # percentiles of a 95 % interval


def discordant(hits_a: Flags, hits_b: Flags) -> tuple[int, int]:
    """How many images only A, and how many only B, has right.

    Raises:
        ValueError: If there are no images, or not the same number of them.
    """
    if hits_a.shape != hits_b.shape or hits_a.size == 0:
        raise ValueError(f"a paired test needs the same images, not {hits_a.size} and {hits_b.size}")
    return int(np.sum(hits_a & ~hits_b)), int(np.sum(hits_b & ~hits_a))


def mcnemar(hits_a: Flags, hits_b: Flags) -> float:
    """Exact two-sided p-value of McNemar's test that both models are equally often right.

    Only images that one of them has wrong count: under the hypothesis the ``b`` and ``c`` discordant ones are a
    fair coin's, so ``p = min(1, 2 P(X <= min(b, c)))`` with ``X ~ Binomial(b + c, 1/2)``. 1 without any.

    Args:
        hits_a: Whether A has each image right.
        hits_b: Whether B has, in the same order.

    Raises:
        ValueError: As in `discordant`.

    Source:
        Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12 (2), 1947, pp. 153-157; exact form as in `scipy.stats.binomtest` with p = 1/2.

    Five images that only A has right, and none that only B has: ``2 / 2^5``.

    >>> mcnemar(np.array([True] * 6), np.array([False] * 5 + [True]))
    0.0625
    """
    only_a, only_b = discordant(hits_a, hits_b)
    n, few = only_a + only_b, min(only_a, only_b)
    # The largest term of the tail by its logarithm, since 2^-n underflows; the others by their ratios to it.
    largest = lgamma(n + 1) - lgamma(few + 1) - lgamma(n - few + 1) - n * log(2)
    ratios = np.cumprod(np.arange(few, 0, -1) / np.arange(n - few + 1, n + 1))
    return min(1.0, 2 * exp(largest) * (1.0 + float(ratios.sum())))


def paired_bootstrap(hits_a: Flags, hits_b: Flags, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """95 % percentile bootstrap interval of accuracy A minus accuracy B, as fractions.

    Resampling images with replacement changes only how many discordant ones of each kind are drawn. Their counts
    are multinomial, and are drawn directly: exactly the bootstrap over images, at the cost of three numbers a draw.

    Args:
        hits_a: Whether A has each image right.
        hits_b: Whether B has, in the same order.
        seed: Of the resampling.
        draws: Resamples, at least 1.

    Raises:
        ValueError: As in `discordant`.

    Source:
        B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    (only_a, only_b), n = discordant(hits_a, hits_b), hits_a.size
    shares = [only_a / n, only_b / n, (n - only_a - only_b) / n]
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=draws)
    low, high = percentiles((drawn[:, 0] - drawn[:, 1]) / n)
    return float(low), float(high)


def bootstrap_mean(values: Floats, seed: int = 0, draws: int = 2_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of one value an image, such as a difference of mCE shares.

    Args:
        values: One number an image.
        seed: Of the resampling.
        draws: Resamples, at least 1.

    Raises:
        ValueError: If there are no values.

    Source:
        As in `paired_bootstrap`.
    """
    if values.size == 0:
        raise ValueError("a bootstrap needs at least one image")
    rng = np.random.default_rng(seed)
    # One resample at a time: all of them at once would take gigabytes for 50,000 images.
    means = np.array([values[rng.integers(values.size, size=values.size)].mean() for _ in range(draws)])
    low, high = percentiles(means)
    return float(low), float(high)


def percentiles(drawn: Floats) -> tuple[Floats, Floats]:
    """The bounds of a 95 % percentile interval, from (draws, ...) numbers; NaNs do not count, and alone give NaN."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        low, high = np.nanpercentile(drawn, _TAILS, axis=0)
    return low, high
