"""What a map can reach that never looks at its exemplar: where regions tend to lie; and IoU at every threshold."""

from __future__ import annotations

import functools
from typing import TypedDict

import torch
from torch import Tensor

from cim_bench.pretrain.cim.exemplars import correlation_maps, rotated_boxes, sample_regions

DRAWS = 4096  # its sampling error raises the prior's loss by 1 / (2 × draws), 0.0001 an exemplar
LEVELS = 50  # thresholds 0, 0.02, ..., 0.98


class RegionDraws(TypedDict):
    """Settings of the draws of exemplars' regions."""

    scale: tuple[float, float]
    ratio: tuple[float, float]
    max_degrees: int


def draw_boxes(
    count: int, side: int, *, scale: tuple[float, float], ratio: tuple[float, float], max_degrees: int
) -> Tensor:
    """Boxes (count, 5) of exemplars, as training draws them; from torch's global generator.

    Args:
        count: How many.
        side: Of the base view, in pixels.
        scale: Range of a region's area fraction.
        ratio: Range of its width / height.
        max_degrees: Rotations are whole degrees in [-max, max); 0 for none.
    """
    regions = sample_regions(count, side, scale=scale, ratio=ratio)
    low, high = (-max_degrees, max_degrees) if max_degrees else (0, 1)
    degrees = torch.randint(low, high, (count,)).float()
    return rotated_boxes(regions, degrees, side)


@functools.lru_cache(maxsize=8)
def position_prior(
    side: int, resolution: int, *, scale: tuple[float, float], ratio: tuple[float, float], max_degrees: int
) -> Tensor:
    """Probability that a pixel of the context lies in an exemplar's region, (resolution, resolution), in (0, 1).

    Regions depend on no image, so this is estimated from `DRAWS` draws of its own, which leave the global generator as
    it was. Of all maps that ignore the exemplar it has the lowest expected cross entropy.

    Args:
        side: Of the base view, in pixels.
        resolution: Of the context.
        scale: As of `draw_boxes`.
        ratio: Likewise.
        max_degrees: Likewise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        boxes = draw_boxes(DRAWS, side, scale=scale, ratio=ratio, max_degrees=max_degrees)
    inside = torch.stack([correlation_maps(part, side, resolution).sum(dim=0) for part in torch.split(boxes, 256)]).sum(
        dim=0
    )
    return (inside + 0.5) / (DRAWS + 1)


def cross_entropy(probabilities: Tensor, maps: Tensor) -> Tensor:
    """Mean two-class cross entropy over the pixels of each map.

    Args:
        probabilities: (H, W) in (0, 1), one prediction for all maps.
        maps: (..., H, W) bool.

    Returns:
        (...), in nats.
    """
    gain = torch.log(probabilities / (1 - probabilities))
    return -(torch.log1p(-probabilities).mean() + (gain * maps).mean(dim=(-1, -2)))


def iou_by_threshold(probabilities: Tensor, maps: Tensor) -> Tensor:
    """Intersection over union of maps and of the pixels whose probability reaches each threshold, summed over maps.

    Args:
        probabilities: (N, H, W) in [0, 1].
        maps: (N, H, W) bool.

    Returns:
        (LEVELS,) sums of N values for the thresholds 0, 1 / LEVELS, ..., 1 - 1 / LEVELS.
    """
    number = len(probabilities)
    level = (probabilities * LEVELS).long().clamp(0, LEVELS - 1).flatten(1)
    level = level + LEVELS * torch.arange(number, device=level.device)[:, None]
    inside = maps.flatten(1)

    def reaching(levels: Tensor) -> Tensor:
        """(N, LEVELS) pixels at each level or above."""
        counts = torch.bincount(levels.flatten(), minlength=number * LEVELS).view(number, LEVELS)
        return counts.flip(1).cumsum(1).flip(1)

    shown, both = reaching(level), reaching(level[inside])
    union = shown + inside.sum(dim=1, keepdim=True) - both
    return (both.double() / union.clamp(min=1)).sum(dim=0)
