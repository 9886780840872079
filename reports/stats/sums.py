"""Numbers that are functions of sums over images, such as mIoU: bootstrap intervals and a paired test; no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cim_bench.reports.stats.arrays import Counts, Floats
from cim_bench.reports.stats.paired import percentiles

DRAWS = 2_000
_CHUNK = 250  # draws at a time: their weights for 20,000 images take 40 MB


class Paired(NamedTuple):
    """The difference of a number between two models.

    Attributes:
        difference: A minus B.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
        p: Two-sided; at least ``2 / (draws + 1)``.
    """

    difference: float
    low: float
    high: float
    p: float


def bootstrap_of_sums(
    images: Counts, number: Callable[[Counts], Floats], seed: int = 0, draws: int = DRAWS
) -> tuple[Floats, Floats]:
    """95 % percentile bootstrap interval, over images, of a number that is a function of their sums.

    An image is drawn with all of its pixels: those of one image are no independent samples. A class that occurs in
    a single image is in two of three resamples only, and is left out of the mean of the others, so that intervals of
    a mean over classes are wide, and not always centred, where classes are rare.

    Args:
        images: (N, ...) counts of each image.
        number: From (draws, ...) sums to (draws,) or (draws, K) numbers; NaN where there is none.
        seed: Of the resampling.
        draws: Resamples, at least 1.

    Returns:
        Lower and upper bounds, each () or (K,); NaN where no resample has a number.

    Raises:
        ValueError: If there are no images.

    Source:
        B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    found = np.concatenate([number(sums) for sums in _resampled(images, seed, draws)])
    return percentiles(found)


def paired_bootstrap_of_sums(
    a: Counts, b: Counts, number: Callable[[Counts], Floats], seed: int = 0, draws: int = DRAWS
) -> Paired:
    """A number of two models on the same images: their difference, with a paired bootstrap interval and test.

    Each resample is of images, and the same for both. The p-value is twice the smaller share of resamples in which
    the difference has either sign, itself and 0 counted on both sides: below 0.05 where the 95 % interval excludes 0.

    Args:
        a: (N, ...) counts of each image under A.
        b: Under B, images in the same order.
        number: As for `bootstrap_of_sums`, one number a sum.
        seed: Of the resampling.
        draws: Resamples, at least 1.

    Raises:
        ValueError: If there are no images, or not the same number of them.

    Source:
        B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 15 (achieved significance
        level); the +1 as in A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their Application", 1997, eq. 4.11.
    """
    if a.shape != b.shape:
        raise ValueError(f"a paired test needs the same images and classes, not {a.shape} and {b.shape}")
    pairs = zip(_resampled(a, seed, draws), _resampled(b, seed, draws), strict=True)
    found = np.concatenate([number(one) - number(two) for one, two in pairs])
    low, high = percentiles(found)
    difference = float(number(a.sum(0)) - number(b.sum(0)))
    few = min(int(np.sum(found <= 0)), int(np.sum(found >= 0)))
    return Paired(difference, float(low), float(high), min(1.0, 2 * (few + 1) / (draws + 1)))


def _resampled(images: Counts, seed: int, draws: int) -> Iterator[Counts]:
    """Sums over resamples of the images, some draws at a time; exact, as they stay below 2^53."""
    n = len(images)
    if n == 0:
        raise ValueError("a bootstrap needs at least one image")
    flat = images.reshape(n, -1).astype(np.float64)
    for first in range(0, draws, _CHUNK):
        weights = _weights(n, seed, first, min(_CHUNK, draws - first)).astype(np.float64)
        yield np.rint(weights @ flat).astype(np.int64).reshape(-1, *images.shape[1:])


@lru_cache(maxsize=DRAWS // _CHUNK)
def _weights(n: int, seed: int, first: int, draws: int) -> NDArray[np.int16]:
    """How often each image is in each resample: (draws, n); models on the same images share them."""
    drawn = np.random.default_rng((seed, first)).multinomial(n, np.full(n, 1 / n), size=draws)
    weights: NDArray[np.int16] = drawn.astype(np.int16)
    return weights
