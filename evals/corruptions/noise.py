"""Gaussian, shot and impulse noise of ImageNet-C.

Every constant is from hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py. Images are (B, 3, H, W)
uint8, draws (B, 3, H, W) float32, severities 1 to 5.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from cim_bench.evals.corruptions.ops import truncate, uniform

GAUSSIAN_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation; white is 1
SHOT_NOISE = (60, 25, 12, 5, 3)  # photons of a white pixel
IMPULSE_NOISE = (0.03, 0.06, 0.09, 0.17, 0.27)  # share of the channel values that are replaced


def draw_normal(source: torch.Generator, _severity: int, height: int, width: int) -> tuple[Tensor]:
    """(3, H, W) of the normal distribution of mean 0 and variance 1."""
    return (torch.randn(3, height, width, generator=source),)


def draw_uniform(source: torch.Generator, _severity: int, height: int, width: int) -> tuple[Tensor]:
    """(3, H, W) uniform in [0, 1)."""
    return (uniform(source, 3, height, width),)


def gaussian_noise(images: Tensor, severity: int, normal: Tensor) -> Tensor:
    """Independent normal noise on every channel value."""
    return truncate(images.float() + normal * (255 * GAUSSIAN_NOISE[severity - 1]))


def shot_noise(images: Tensor, severity: int, draws: Tensor) -> Tensor:
    """Photon counts: a Poisson variable whose mean is the channel value times the photons of white.

    The count is the quantile of a uniform draw, found by bisection in a table of 256 grey levels: six look-ups a
    value at most, where Poisson samplers take a loop of their own for each.
    """
    white = SHOT_NOISE[severity - 1]
    width = 1 << white.bit_length()
    table = _poisson_table(white, width).to(images.device)
    chances = draws.flatten()
    start = images.flatten().int() * width
    place, step = start.clone(), width // 2
    while step:
        place.add_(chances >= table[step - 1 :].index_select(0, place), alpha=step)
        step //= 2
    return truncate((place - start) * (255 / white)).view(images.shape)


@functools.cache
def _poisson_table(white: int, width: int) -> Tensor:
    """P(count <= k) by grey level (256 rows of `width`, flattened); 2 from `white` on, for that is clipped to white."""
    counts = torch.arange(width, dtype=torch.float64)
    mean = torch.arange(256, dtype=torch.float64)[:, None] * white / 255
    below: Tensor = torch.special.gammaincc(counts + 1, mean)  # P(Poisson(mean) <= k) = Q(k + 1, mean)
    below[:, white:] = 2.0
    return below.float().flatten()


def impulse_noise(images: Tensor, severity: int, draws: Tensor) -> Tensor:
    """Salt and pepper on single channel values, as often white as black (skimage.util.random_noise, ``s&p``)."""
    share = IMPULSE_NOISE[severity - 1]
    kept, salt = (draws >= share).view(torch.uint8), (draws < share / 2).view(torch.uint8)
    return images * kept + salt * 255  # arithmetic on bytes: 4 times faster than masks
