"""Scoring: every image once, any set of strides and the whole image from one pass, on any number of processes."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_bench.data.segmentation import SegmentationSet
from cim_bench.data.transforms import to_uint8
from cim_bench.engine.inference import NonFiniteOutputError
from cim_bench.evals.metrics import confusion_matrix
from cim_bench.evals.segmentation.scoring import score
from cim_bench.evals.segmentation.transforms import resize_to_bound
from cim_bench.records.confusions import Cells, to_cells
from cim_bench.spec import Data, Machine, SlidingTest
from tests.processes import in_two_processes

MEAN = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
TEST = SlidingTest(scale=(100, 60), crop=48, strides=(16, 32), whole=True)


class Convolution(nn.Module):
    """Logits that depend on place and neighbours; padding of the mean colour is 0 to it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, classes, 7, stride=4, padding=3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.conv(images - MEAN)
        return logits


@pytest.fixture
def images(small_masks: Data) -> SegmentationSet:
    return SegmentationSet(small_masks, "val")


def run(images: SegmentationSet, test: SlidingTest, machine: Machine) -> list[Any]:
    network = Convolution(len(images.classes)).eval()
    return score(network, images, test, mean=MEAN, patch=4, machine=machine)


def plain(images: SegmentationSet, index: int, stride: int) -> Cells:
    """One image, window by window on a canvas of the whole image."""
    image, mask = images.read(index)
    pixels = resize_to_bound(to_uint8(image), TEST.scale)[None].float() / 255
    network, (h, w), crop = Convolution(len(images.classes)).eval(), pixels.shape[2:], TEST.crop
    total, count = torch.zeros(1, len(images.classes), h, w), torch.zeros(1, 1, h, w)
    for row in range(max(h - crop + stride - 1, 0) // stride + 1):
        for column in range(max(w - crop + stride - 1, 0) // stride + 1):
            y, x = min(row * stride, h - crop), min(column * stride, w - crop)
            with torch.no_grad():
                logits = network(pixels[:, :, y : y + crop, x : x + crop])
            total[:, :, y : y + crop, x : x + crop] += F.interpolate(logits, size=(crop, crop), mode="bilinear")
            count[:, :, y : y + crop, x : x + crop] += 1
    found = F.interpolate(total / count, size=mask.shape, mode="bilinear").argmax(dim=1)[0]
    return to_cells(confusion_matrix(mask, found.to(torch.uint8), len(images.classes)).numpy())


def same(one: Cells, two: Cells) -> bool:
    return bool((one.cells == two.cells).all()) and bool((one.counts == two.counts).all())


def test_each_stride_is_what_a_plain_loop_gives(images: SegmentationSet, cpu: Machine) -> None:
    found = run(images, TEST, cpu)
    assert [facets for facets, _ in found] == [{"window": "slide-16"}, {"window": "slide-32"}, {"window": "whole"}]
    for way, stride in enumerate(TEST.strides):
        assert all(same(found[way][1][index], plain(images, index, stride)) for index in range(len(images)))
    labelled = [int((images.read(index)[1] != 255).sum()) for index in range(len(images))]
    for _, cells in found:
        assert [int(one.counts.sum()) for one in cells] == labelled  # every labelled pixel once


def test_ways_together_are_those_alone(images: SegmentationSet, cpu: Machine) -> None:
    together = run(images, TEST, cpu)
    for way, alone in enumerate(
        ({"strides": (16,), "whole": False}, {"strides": (32,), "whole": False}, {"strides": ()})
    ):
        ((_, cells),) = run(images, replace(TEST, **alone), cpu)  # type: ignore[arg-type]
        assert all(same(a, b) for a, b in zip(cells, together[way][1], strict=True))


def test_images_smaller_than_a_window_are_padded_and_cut_again(images: SegmentationSet, cpu: Machine) -> None:
    ((_, cells),) = run(images, SlidingTest(scale=(40, 40), crop=48, strides=(48,)), cpu)
    assert [int(one.counts.sum()) for one in cells] == [
        int((images.read(i)[1] != 255).sum()) for i in range(len(images))
    ]


def _member(rank: int, images: SegmentationSet, machine: Machine, folder: Path) -> None:
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(run(images.take(range(5)), TEST, machine)))


def test_two_processes_count_what_one_does(images: SegmentationSet, cpu: Machine, tmp_path: Path) -> None:
    in_two_processes(_member, images, cpu, tmp_path, meet=tmp_path / "meet")
    alone = run(images.take(range(5)), TEST, cpu)
    for rank in range(2):
        found = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        for (facets, cells), (expected, others) in zip(found, alone, strict=True):
            assert facets == expected
            assert all(same(a, b) for a, b in zip(cells, others, strict=True))


def test_logits_that_are_not_finite_are_refused(images: SegmentationSet, cpu: Machine) -> None:
    network = Convolution(len(images.classes)).eval()
    nn.init.constant_(network.conv.weight, float("nan"))
    with pytest.raises(NonFiniteOutputError, match=r"logits on masks/val are not finite"):
        score(network, images, TEST, mean=MEAN, patch=4, machine=cpu)
