"""Sliding windows: where they lie, and their mean, against mmseg's loop written plainly."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cim_bench.evals.segmentation.windows import answer, boxes, mean_logits, starts


@given(st.integers(1, 64), st.integers(0, 200), st.data())
def test_windows_cover_a_side_and_lie_inside(crop: int, more: int, data: st.DataObject) -> None:
    length, stride = crop + more, data.draw(st.integers(1, crop))
    found = starts(length, crop, stride)
    assert found[0] == 0
    assert found[-1] == length - crop
    assert all(0 < b - a <= stride for a, b in itertools.pairwise(found))


def test_published_windows() -> None:
    assert starts(683, 512, 341) == [0, 171]
    assert starts(683, 512, 256) == [0, 171]
    assert starts(800, 512, 256) == [0, 256, 288]
    assert starts(512, 512, 341) == [0]


def slide_inference(logits_of: list[Tensor], size: tuple[int, int], crop: int, stride: int) -> Tensor:
    """As mmseg's ``slide_inference``: sums on full-size canvases, divided by counts."""
    h, w = size
    grids_h, grids_w = (max(n - crop + stride - 1, 0) // stride + 1 for n in size)
    total, count = torch.zeros(1, logits_of[0].shape[0], h, w), torch.zeros(1, 1, h, w)
    windows = iter(logits_of)
    for row in range(grids_h):
        for column in range(grids_w):
            y2, x2 = min(row * stride + crop, h), min(column * stride + crop, w)
            y1, x1 = max(y2 - crop, 0), max(x2 - crop, 0)
            resized = F.interpolate(next(windows)[None], size=(crop, crop), mode="bilinear", align_corners=False)
            total += F.pad(resized, (x1, w - x2, y1, h - y2))
            count[:, :, y1:y2, x1:x2] += 1
    return total / count


@given(st.integers(0, 40), st.integers(0, 40), st.integers(4, 16), st.integers(0, 1000))
def test_the_mean_is_that_of_a_plain_loop(tall: int, wide: int, stride: int, seed: int) -> None:
    crop, size = 16, (16 + tall, 16 + wide)
    places = boxes(*size, crop, stride)
    logits = list(torch.randn(len(places), 3, 4, 4, generator=torch.Generator().manual_seed(seed)))
    torch.testing.assert_close(
        mean_logits(logits, places, size, crop)[None], slide_inference(logits, size, crop, stride)
    )


@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 30), st.integers(0, 1000))
def test_answers_do_not_depend_on_how_many_classes_are_resized_together(c: int, h: int, w: int, seed: int) -> None:
    logits = torch.randn(c, 5, 7, generator=torch.Generator().manual_seed(seed))
    whole = F.interpolate(logits[None], size=(h, w), mode="bilinear", align_corners=False)[0]
    assert answer(logits.split(4), (h, w)).equal(whole.argmax(dim=0))


def test_of_equal_logits_the_first_class_is_taken() -> None:
    assert answer(torch.zeros(40, 2, 2).split(16), (4, 4)).unique().tolist() == [0]
