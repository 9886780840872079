"""Splits of a segmentation set, and the two geometries that features are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cim_bench.data.segmentation import IGNORED, SegmentationSet
from cim_bench.evals.segmentation.sets import CentreWindow, PreparedMasks, Squash, open_splits
from cim_bench.evals.segmentation.transforms import bounded_size
from cim_bench.spec import Data

WINDOW = CentreWindow(crop=32, bound=(128, 32), mean=(0.5, 0.25, 0.75), antialias=False)


def test_a_split_that_is_learned_from_is_not_scored(small_masks: Data, tmp_path: Path) -> None:
    train, val = open_splits(small_masks)
    assert (len(train), len(val)) == (12, 6)
    with pytest.raises(ValueError, match=r"masks: train and train are the same images, or one lies in the other"):
        open_splits(replace(small_masks, val_split="train"))


@given(st.integers(4, 90), st.integers(4, 90), st.integers(0, 99))
def test_image_and_mask_keep_together(height: int, width: int, seed: int) -> None:
    """Of an image whose colour is its mask's label, made by nearest, every pixel has its own label's colour."""
    draw = np.random.default_rng(seed)
    mask = np.kron(draw.integers(0, 4, (2, 2)), np.ones((45, 45))).astype(np.uint8)[:height, :width]
    image = Image.fromarray(np.stack([mask * 60] * 3, axis=-1))
    for geometry in (WINDOW, Squash(32)):
        pixels, labels = geometry(image), geometry.mask(torch.from_numpy(mask.copy()))
        assert pixels.shape == (3, 32, 32)
        assert labels.shape == (32, 32)
        inside = labels != IGNORED
        off = (pixels[0].int() - labels.int() * 60)[inside].abs() > 30
        assert off.float().mean() <= 0.35 if inside.any() else True  # pixels between two colours


def test_the_middle_of_a_wide_image_and_padding_of_a_narrow_one() -> None:
    wide = torch.arange(96, dtype=torch.uint8).repeat(32, 1)  # 32 high: no resize
    assert WINDOW.mask(wide)[0].tolist() == list(range(32, 64))
    thin = torch.zeros(16, 128, dtype=torch.uint8)  # its long side is bounded: stays 16 high
    labels = WINDOW.mask(thin)
    assert bounded_size(16, 128, (128, 32)) == (16, 128)
    assert (labels[:16] == 0).all()
    assert (labels[16:] == IGNORED).all()
    pixels = WINDOW(Image.new("RGB", (128, 16), (9, 9, 9)))
    assert pixels[:, 15, 0].tolist() == [9, 9, 9]
    assert pixels[:, 16, 0].tolist() == [round(255 * value) for value in WINDOW.mean]


def test_prepared_masks_are_of_one_size(small_masks: Data) -> None:
    images = PreparedMasks(SegmentationSet(small_masks, "val"), Squash(24), ("more",))
    assert images.classes[-1] == "more"
    part = images.take([3, 1])
    assert [part.image_id(0), part.image_id(1)] == [images.image_id(3), images.image_id(1)]
    assert part.read(0)[1].shape == (24, 24)
    assert part.classes == images.classes
