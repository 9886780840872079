"""Bootstrap of functions of sums: against the bootstrap of a proportion, by hand, and its error rate."""

from __future__ import annotations

import numpy as np
import pytest

from cim_bench.records.confusions import miou, per_class_iou, pixel_accuracy
from cim_bench.reports.stats.paired import bootstrap_mean, mcnemar, paired_bootstrap
from cim_bench.reports.stats.sums import bootstrap_of_sums, paired_bootstrap_of_sums


def one_pixel_images(right: np.ndarray) -> np.ndarray:
    """Images of a single pixel of class 0, of two classes: their pixel accuracy is a share of images."""
    found = np.zeros((len(right), 3, 2), np.int64)
    found[:, 0, 0], found[:, 1, 0] = right, 1
    found[:, 2, 0], found[:, 2, 1] = right, ~right
    return found


def street_scenes(count: int, seed: int) -> np.ndarray:
    """Images of which each has some of 5 classes, about half of whose pixels are found."""
    draw = np.random.default_rng(seed)
    true = draw.integers(1, 1000, (count, 5)) * (draw.random((count, 5)) < 0.6)
    found = draw.binomial(true, draw.uniform(0.3, 0.8, (count, 1)))
    return np.stack([found, true, found + draw.integers(0, 300, (count, 5))], axis=1)


def test_a_share_of_images_has_the_interval_of_a_proportion() -> None:
    right = np.random.default_rng(0).random(400) < 0.7
    low, high = bootstrap_of_sums(one_pixel_images(right), pixel_accuracy, draws=4000)
    expected = bootstrap_mean(right.astype(np.float64), draws=4000)
    assert (low, high) == pytest.approx(expected, abs=0.006)


def test_images_that_are_all_alike_have_no_spread() -> None:
    images = np.repeat(street_scenes(1, 0), 20, axis=0)
    whole = miou(images.sum(0))
    assert np.array(bootstrap_of_sums(images, miou)) == pytest.approx(np.array([whole, whole]))


def test_resamples_are_of_whole_images() -> None:
    """Two images: resamples are both, or one of them twice. IoU 1 and 0 of 10 and 30 pixels: 1, 10 / 40 or 0."""
    images = np.array([[[10], [10], [10]], [[0], [30], [0]]])
    drawn: list[float] = []

    def number(sums: np.ndarray) -> np.ndarray:
        drawn.extend(found := miou(sums))
        return np.array(found)

    assert bootstrap_of_sums(images, number, draws=1000) == (0.0, 1.0)
    shares = [float(np.mean(np.isclose(drawn, value))) for value in (0.0, 0.25, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.05)
    assert sum(shares) == 1.0


def test_several_numbers_at_once_and_a_class_that_is_nowhere() -> None:
    images = street_scenes(60, 1)
    images[..., 4] = 0
    low, high = bootstrap_of_sums(images, per_class_iou)
    whole = per_class_iou(images.sum(0))
    assert ((low[:4] < whole[:4]) & (whole[:4] < high[:4])).all()
    assert np.isnan([low[4], high[4]]).all()


def test_the_seed_tells_the_resamples() -> None:
    images = street_scenes(30, 2)
    assert bootstrap_of_sums(images, miou, seed=1) == bootstrap_of_sums(images, miou, seed=1)
    assert bootstrap_of_sums(images, miou, seed=1) != bootstrap_of_sums(images, miou, seed=2)


def test_a_difference_of_shares_has_the_paired_interval_of_proportions() -> None:
    draw = np.random.default_rng(3)
    a, b = draw.random(500) < 0.75, draw.random(500) < 0.68
    found = paired_bootstrap_of_sums(one_pixel_images(a), one_pixel_images(b), pixel_accuracy, draws=4000)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert (found.low, found.high) == pytest.approx(paired_bootstrap(a, b), abs=0.006)
    assert found.p == pytest.approx(mcnemar(a, b), abs=0.03)


def test_both_are_resampled_alike() -> None:
    """B is A with one pixel of each class less in each image: A is better in every resample."""
    a = street_scenes(40, 4)
    b = a.copy()
    b[:, 0] = np.maximum(a[:, 0] - 1, 0)
    found = paired_bootstrap_of_sums(a, b, miou)
    assert 0 < found.low <= found.difference <= found.high < 0.01
    assert found.p == 2 / 2001
    assert paired_bootstrap_of_sums(b, a, miou).p == found.p


def test_a_model_against_itself() -> None:
    images = street_scenes(40, 5)
    assert paired_bootstrap_of_sums(images, images, miou) == (0.0, 0.0, 0.0, 1.0)


def test_models_that_are_alike_are_rarely_told_apart() -> None:
    """Each image is given to one of two models at random: no more than about 5 % of the tests may say p < 0.05."""
    draw, low = np.random.default_rng(6), 0
    for trial in range(200):
        one, two = street_scenes(40, 2 * trial), street_scenes(40, 2 * trial)
        two[:, 0] = np.minimum(street_scenes(40, 2 * trial + 1)[:, 0], two[:, 1])
        two[:, 2] = np.maximum(two[:, 2], two[:, 0])
        swap = draw.random((40, 1, 1)) < 0.5
        pair = np.where(swap, two, one), np.where(swap, one, two)
        low += paired_bootstrap_of_sums(*pair, miou, seed=trial, draws=200).p < 0.05
    assert low / 200 < 0.09


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        bootstrap_of_sums(np.zeros((0, 3, 2), np.int64), miou)
    with pytest.raises(ValueError, match=r"the same images and classes, not \(4, 3, 5\) and \(5, 3, 5\)"):
        paired_bootstrap_of_sums(street_scenes(4, 0), street_scenes(5, 0), miou)
