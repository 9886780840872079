"""Paired tests: by hand, against scipy and a plain bootstrap, and as properties."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cim_bench.reports.stats.paired import Flags, bootstrap_mean, discordant, mcnemar, paired_bootstrap


def pair(both: int, only_a: int, only_b: int, neither: int) -> tuple[Flags, Flags]:
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


def test_by_hand() -> None:
    # 1 against 5: 2 (C(6,0) + C(6,1)) / 2^6 = 14/64
    one, two = pair(10, 1, 5, 3)
    assert discordant(one, two) == (1, 5)
    assert mcnemar(one, two) == pytest.approx(14 / 64)
    assert mcnemar(*pair(10, 0, 0, 3)) == 1.0
    assert mcnemar(*pair(0, 4, 4, 0)) == 1.0  # 2 P(X <= 4) is more than 1


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 9), (12, 12), (87, 51), (1000, 1100), (9000, 9600)])
def test_mcnemar_against_scipy(only_a: int, only_b: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    reference = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
    assert mcnemar(*pair(100, only_a, only_b, 50)) == pytest.approx(reference, rel=1e-9)


def test_a_vanishing_p_is_zero() -> None:
    assert mcnemar(*pair(0, 0, 30_000, 0)) == 0.0


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(1, 40))
def test_mcnemar_properties(both: int, only_a: int, only_b: int, neither: int) -> None:
    one, two = pair(both, only_a, only_b, neither)
    p, n = mcnemar(one, two), only_a + only_b
    exact = min(Fraction(1), 2 * sum(Fraction(comb(n, k), 2**n) for k in range(min(only_a, only_b) + 1)))
    assert p == pytest.approx(float(exact), rel=1e-11)
    assert 0.0 < p <= 1.0
    assert p == mcnemar(two, one)


def test_bootstrap_against_resampled_images() -> None:
    one, two = pair(200, 60, 40, 100)
    rng, n = np.random.default_rng(5), 400
    chosen = rng.integers(n, size=(20_000, n))
    plain = np.percentile(one[chosen].mean(axis=1) - two[chosen].mean(axis=1), [2.5, 97.5])
    assert paired_bootstrap(one, two, seed=0) == pytest.approx(plain, abs=0.004)
    assert bootstrap_mean(one.astype(float) - two, seed=0) == pytest.approx(plain, abs=0.006)
    # Normal approximation by hand: 0.05 ± 1.96 sqrt((0.25 - 0.0025) / 400) = 0.05 ± 0.0488
    assert paired_bootstrap(one, two) == pytest.approx((0.0012, 0.0988), abs=0.004)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(1, 50), st.integers(0, 2**32))
def test_bootstrap_properties(both: int, only_a: int, only_b: int, neither: int, seed: int) -> None:
    one, two = pair(both, only_a, only_b, neither)
    low, high = paired_bootstrap(one, two, seed, draws=2000)
    assert -1.0 <= low <= high <= 1.0
    assert (low, high) == paired_bootstrap(one, two, seed, draws=2000)
    if only_a == only_b == 0:
        assert (low, high) == (0.0, 0.0)
    if only_b == 0:
        assert low >= 0.0


def test_unequal_or_no_images_are_refused() -> None:
    nothing = np.zeros(0, dtype=bool)
    with pytest.raises(ValueError, match="not 3 and 2"):
        mcnemar(np.ones(3, dtype=bool), np.ones(2, dtype=bool))
    with pytest.raises(ValueError, match="not 0 and 0"):
        paired_bootstrap(nothing, nothing)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean(np.zeros(0))
