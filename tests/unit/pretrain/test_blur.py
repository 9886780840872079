"""The reference of masked images: a blurred copy of their visible pixels, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from cim_bench.pretrain.blur import blurred_copy, mean_colour


def test_by_hand() -> None:
    """Columns 1, hidden, 0, 0 of every row: the hidden pixel weighs its neighbours by exp(-d² / 2)."""
    images = torch.tensor([1.0, 9.0, 0.0, 0.0]).expand(1, 1, 4, 4)
    hidden = torch.tensor([False, True, False, False]).expand(1, 1, 4, 4)
    near, far = math.exp(-0.5), math.exp(-2.0)
    expected = near / (2 * near + far)
    assert blurred_copy(images, hidden, 1.0)[0, 0, :, 1].tolist() == pytest.approx([expected] * 4, rel=1e-5)
    assert mean_colour(images, hidden).item() == pytest.approx(1 / 3)


def test_hidden_pixels_do_not_count() -> None:
    torch.manual_seed(0)
    images, hidden = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8) < 0.6
    changed = torch.where(hidden, torch.rand(2, 3, 8, 8), images)
    assert torch.equal(blurred_copy(images, hidden, 2.0), blurred_copy(changed, hidden, 2.0))


def test_far_from_all_visible_pixels_it_is_the_mean_colour() -> None:
    images, hidden = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64, dtype=torch.bool)
    hidden[..., :2] = False
    copy = blurred_copy(images, hidden, 1.0)
    assert torch.allclose(copy[..., -1:], mean_colour(images, hidden).expand(-1, -1, 64, -1))
