"""Intervals and best values: by hand, against scipy, and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cim_bench.reports.stats.intervals import best_of, mean_interval, wilson_interval


def test_wilson_by_hand() -> None:
    # z = 1.959964, z² = 3.841459; 1 + z²/100 = 1.0384146; the center stays 0.5;
    # half = z * sqrt(0.25/100 + z²/40000) / 1.0384146
    #      = 1.959964 * sqrt(0.00259603648) / 1.0384146 = 0.0961684
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038316, 0.5961684), abs=2e-6)
    # No success in n: low 0, high = z² / (n + z²) = 3.841459 / 13.841459
    assert wilson_interval(0.0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (3, 7), (463, 720), (41_550, 50_000), (720, 720)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_against_scipy(successes: int, n: int, confidence: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    reference = stats.binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    ours = wilson_interval(successes / n, n, confidence)
    assert ours == pytest.approx((reference.low, reference.high), abs=1e-12)


@given(value=st.floats(0, 1), n=st.integers(1, 10**7), confidence=st.floats(0.5, 0.999))
def test_wilson_contains_its_value_and_narrows(value: float, n: int, confidence: float) -> None:
    low, high = wilson_interval(value, n, confidence)
    assert 0.0 <= low <= value <= high <= 1.0
    more_low, more_high = wilson_interval(value, 4 * n, confidence)
    assert more_high - more_low < high - low


@pytest.mark.parametrize(
    ("value", "n", "confidence", "message"),
    [
        (64.3, 10, 0.95, "64.3"),
        (float("nan"), 10, 0.95, "nan"),
        (0.5, 0, 0.95, "n=0"),
        (0.5, 10, 95.0, "95.0"),
    ],
)
def test_wilson_refuses(value: float, n: int, confidence: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wilson_interval(value, n, confidence)


def test_best_of_compares_within_groups_only() -> None:
    values = [0.1, 0.3, None, 0.3, 0.9]
    groups = ["a", "a", "a", "a", "b"]  # b has one value: nothing to be better than
    assert best_of(values, groups, True) == [False, True, False, True, False]
    assert best_of(values, groups, False) == [True, False, False, False, False]


def test_mean_interval_by_hand() -> None:
    # values 1, 2, 3, 4: mean 2.5, variance 5/3, standard error sqrt(5/12) = 0.6454972; 1.959964 of it = 1.2651514
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert mean_interval(values) == pytest.approx((1.2348486, 3.7651514), abs=1e-6)
    # 4 of 16: the standard error shrinks by sqrt(3/4); all of them: nothing is uncertain
    half = 1.2651514 * 0.8660254
    assert mean_interval(values, 16) == pytest.approx((2.5 - half, 2.5 + half), abs=1e-6)
    assert mean_interval(values, 4) == (2.5, 2.5)


def test_mean_interval_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).exponential(size=500)
    reference = stats.norm.interval(0.9, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values, confidence=0.9) == pytest.approx(reference)


def test_mean_interval_covers_the_population_mean() -> None:
    rng = np.random.default_rng(1)
    population = rng.gamma(0.5, size=400)
    caught = 0
    for _ in range(500):
        low, high = mean_interval(rng.choice(population, size=200, replace=False), total=400)
        caught += low <= population.mean() <= high
    assert 0.92 <= caught / 500 <= 0.98


@pytest.mark.parametrize(("n", "total", "message"), [(1, None, "at least two"), (5, 4, "5 samples .* part of 4")])
def test_mean_interval_refuses(n: int, total: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(np.zeros(n), total)
