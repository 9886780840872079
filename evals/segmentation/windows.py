"""Sliding windows over an image: where they lie, and the mean of their logits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

CLASSES_AT_ONCE = 16  # brought to the image's size together: bounds memory, changes no answer


class Box(NamedTuple):
    """A window's upper left corner in pixels."""

    top: int
    left: int


def starts(length: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along a side; the last is shifted back inside.

    Source: open-mmlab/mmsegmentation, models/segmentors/encoder_decoder.py, ``slide_inference``.

    Args:
        length: Of the side, in pixels; at least `crop`.
        crop: Of a window.
        stride: Between windows; at most `crop`.

    Examples:
        >>> starts(683, 512, 341), starts(512, 512, 341)
        ([0, 171], [0])
    """
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [min(number * stride, length - crop) for number in range(count)]


def boxes(height: int, width: int, crop: int, stride: int) -> list[Box]:
    """All windows of an image of at least `crop` pixels a side, row by row."""
    return [Box(top, left) for top in starts(height, crop, stride) for left in starts(width, crop, stride)]


def mean_logits(logits: Sequence[Tensor], places: Sequence[Box], size: tuple[int, int], crop: int) -> Tensor:
    """Mean of the windows' logits at every pixel.

    Args:
        logits: Of each window (classes, h, w), which are brought to `crop` pixels a side first (bilinear).
        places: Of the windows, which cover the image.
        size: Height and width of the image.
        crop: Side of a window in pixels.

    Returns:
        (classes, height, width)
    """
    if len(places) == 1 and size == (crop, crop):
        return _to_size(logits[0], size)
    total = logits[0].new_zeros(logits[0].shape[0], *size)
    count = logits[0].new_zeros(size)
    for window, (top, left) in zip(logits, places, strict=True):
        total[:, top : top + crop, left : left + crop] += _to_size(window, (crop, crop))
        count[top : top + crop, left : left + crop] += 1
    return total.div_(count)


def answer(chunks: Iterable[Tensor], size: tuple[int, int]) -> Tensor:
    """The class with the largest logit at every pixel of another size; of equal ones the first.

    Args:
        chunks: Logits (classes, h, w) of some classes after the other, so that never all are in memory at full size.
        size: Height and width; logits are brought to it before the largest is taken (bilinear).

    Returns:
        (height, width) int64.
    """
    best, found, first = None, None, 0
    for logits in chunks:
        largest, place = _to_size(logits, size).max(dim=0)
        if best is None or found is None:
            best, found = largest, place
        else:
            higher = largest > best
            best, found = largest.where(higher, best), (place + first).where(higher, found)
        first += len(logits)
    assert found is not None
    return found


def _to_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(logits.shape[1:]) == size:
        return logits
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
