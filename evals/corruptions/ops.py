"""What several corruptions share: random draws, rounding, centre zoom, Gaussian weights, directed motion blur.

Images inside the corruptions are float32 in grey levels, 0 to 255, (B, 3, H, W).
"""

from __future__ import annotations

import math
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor

# float32 arithmetic is off by up to about 1e-4 grey levels, and truncation would make 50 of an exact 51.
SLACK = 1e-3


def generator(seed: int, name: str, severity: int) -> torch.Generator:
    """The source of one sample's draws.

    Name and severity are mixed in, so that one seed gives independent noise for each of them. torch's CPU
    generator looks at 32 bits; the exclusive or keeps seeds distinct that differ in those.
    """
    return torch.Generator().manual_seed((seed ^ zlib.crc32(f"{name}/{severity}".encode())) & 0xFFFFFFFF)


def uniform(source: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Float32 draws in [low, high)."""
    draws = torch.rand(shape, generator=source)
    return draws if (low, high) == (0.0, 1.0) else draws.mul_(high - low).add_(low)


def truncate(levels: Tensor) -> Tensor:
    """Grey levels to uint8 as ``numpy.uint8`` does after clipping: towards zero (make_imagenet_c.py, saving)."""
    return (levels + SLACK).clamp_(0, 255).short().to(torch.uint8)  # by way of int16: 4 times faster


def gaussian_weights(sigma: float, cut: float) -> Tensor:
    """Normalised weights exp(-k^2 / 2 sigma^2) for |k| <= int(cut * sigma + 0.5), float64 (scipy.ndimage's rule)."""
    radius = int(cut * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return weights / weights.sum()


def zoom_centre(images: Tensor, factor: float) -> Tensor:
    """Enlarge the centre of (B, C, H, W) to the same height and width, linearly.

    As ``clipped_zoom`` of make_imagenet_c.py: crop ceil(side / factor) pixels, resize them by `factor` so that
    the corner pixels' centres stay at the corners (scipy.ndimage.zoom, order 1), and trim what is left over.
    """
    height, width = images.shape[-2:]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    large = F.interpolate(
        images[..., top : top + rows, left : left + columns],
        size=(round(rows * factor), round(columns * factor)),
        mode="bilinear",
        align_corners=True,
    )
    top, left = (large.shape[-2] - height) // 2, (large.shape[-1] - width) // 2
    return large[..., top : top + height, left : left + width]


def motion(images: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """ImageMagick's motion blur: a one-sided Gaussian along a direction, nearest pixels, replicated border.

    Source: ImageMagick, MagickCore/effect.c, MotionBlurImage (weights exp(-i^2 / 2 sigma^2), i = 0 .. 2 radius;
    tap i lies ceil(i cos a - 0.5) columns and ceil(i sin a - 0.5) rows away).

    Args:
        images: (B, C, H, W) float.
        radius: Half the number of taps less one, pixels.
        sigma: Of the Gaussian, pixels.
        degrees: (B,) directions a; 0 takes pixels from the right, 90 from below.

    Returns:
        (B, C, H, W) float.
    """
    taps = range(2 * radius + 1)
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in taps]
    total = sum(weights)
    reach = 2 * radius
    height, width = images.shape[-2:]
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    blurred = torch.zeros_like(images)
    for sample, angle in enumerate(degrees.tolist()):
        across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        for i, weight in zip(taps, weights, strict=True):
            y, x = reach + math.ceil(i * down - 0.5), reach + math.ceil(i * across - 0.5)
            blurred[sample].add_(padded[sample, :, y : y + height, x : x + width], alpha=weight / total)
    return blurred
