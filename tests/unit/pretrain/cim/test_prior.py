"""The reference of CIM: the position prior and IoU at every threshold, by hand; its figures for the published draws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cim_bench.pretrain.cim.exemplars import correlation_maps
from cim_bench.pretrain.cim.method import CIM
from cim_bench.pretrain.cim.prior import LEVELS, cross_entropy, draw_boxes, iou_by_threshold, position_prior

ARGUMENTS = CIM().draws


def test_prior_by_hand() -> None:
    """Squares of 2 in a view of 4 start at 0, 1 or 2: columns are covered in 1, 2, 2 and 1 of 3 cases, rows alike."""
    prior = position_prior(4, 4, scale=(0.25, 0.25), ratio=(1.0, 1.0), max_degrees=0)
    line = torch.tensor([1.0, 2.0, 2.0, 1.0]) / 3
    assert torch.allclose(prior, line[:, None] * line, atol=0.03)  # 4096 draws: 0.0078 is one standard deviation
    assert prior.mean().item() == pytest.approx(1 / 4, abs=1e-4)  # every draw covers 4 of 16 pixels


def test_prior_takes_nothing_from_the_global_generator() -> None:
    position_prior.cache_clear()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = position_prior(16, 16, **ARGUMENTS)
    assert torch.equal(torch.rand(4), expected)
    position_prior.cache_clear()
    torch.manual_seed(4)
    assert torch.equal(position_prior(16, 16, **ARGUMENTS), first)


def test_cross_entropy_by_hand() -> None:
    prior = torch.tensor([[0.5, 0.25]])
    maps = torch.tensor([[[True, False]], [[False, True]]])
    expected = [(math.log(2) + math.log(4 / 3)) / 2, (math.log(2) + math.log(4)) / 2]
    assert cross_entropy(prior, maps).tolist() == pytest.approx(expected)


def test_iou_by_threshold_by_hand() -> None:
    """Pixels 0.1, 0.5, 0.9 of which the last two are inside: 2/3 up to 0.1, then 2/2 up to 0.5, then 1/2, then 0/2."""
    iou = iou_by_threshold(torch.tensor([[[0.11, 0.51, 0.91]]]), torch.tensor([[[False, True, True]]]))
    thresholds = [k / LEVELS for k in range(LEVELS)]
    expected = [2 / 3 if t <= 0.11 else 1.0 if t <= 0.51 else 0.5 if t <= 0.91 else 0.0 for t in thresholds]
    assert iou.tolist() == pytest.approx(expected)


@given(seed=st.integers(0, 1000), number=st.integers(1, 4))
def test_iou_by_threshold_is_that_of_each_cut(seed: int, number: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(number, 5, 6, generator=generator, dtype=torch.float64)
    maps = torch.rand(number, 5, 6, generator=generator) < 0.3
    sums = iou_by_threshold(probabilities, maps)
    for level in range(LEVELS):
        shown = (probabilities * LEVELS).floor() >= level
        union = (shown | maps).sum(dim=(1, 2)).clamp(min=1)
        expected = ((shown & maps).sum(dim=(1, 2)).double() / union).sum()
        assert sums[level].item() == pytest.approx(expected.item())


@pytest.mark.parametrize(("degrees", "loss", "iou"), [(0, 1.95, 0.36), (45, 1.85, 0.486)])
def test_what_a_map_that_never_looks_gets(degrees: int, loss: float, iou: float) -> None:
    """Four exemplars of a view of 64 pixels: the loss of the prior, the best IoU of a fixed map; 2048 other draws.

    Of six seeds, losses spread by 0.01 and IoUs by 0.004.
    """
    arguments = CIM(max_degrees=degrees).draws
    torch.manual_seed(1)
    maps = correlation_maps(draw_boxes(2048, 64, **arguments), 64, 64)
    prior = position_prior(64, 64, **arguments)
    assert 4 * cross_entropy(prior, maps).mean().item() == pytest.approx(loss, abs=0.03)
    assert cross_entropy(maps.float().mean().expand(64, 64), maps).mean() > cross_entropy(prior, maps).mean()
    ious = iou_by_threshold(prior.expand(2048, -1, -1), maps) / 2048
    assert ious.max().item() == pytest.approx(iou, abs=0.01)
    assert ious[LEVELS // 2] < ious.max() - 0.03  # cut at one half, as a sharp map would be
