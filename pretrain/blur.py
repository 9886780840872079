"""What a masked image's visible pixels give away without any learning: a blurred copy of them, under the mask."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTHS = (0.25, 0.5, 1.0, 2.0)  # standard deviations of the blur that are tried, in hidden squares
FAINT = 1e-6  # weight of the mean colour, which is all that is known far from every visible pixel


def mean_colour(images: Tensor, hidden: Tensor) -> Tensor:
    """(B, C, 1, 1) mean of each image's visible pixels.

    Args:
        images: (B, C, S, S).
        hidden: (B, 1, S, S) bool.
    """
    return (images * ~hidden).sum(dim=(2, 3), keepdim=True) / (~hidden).sum(dim=(2, 3), keepdim=True)


def blurred_copy(images: Tensor, hidden: Tensor, deviation: float) -> Tensor:
    """Gaussian mean of the visible pixels around each pixel, (B, C, S, S): blurred pixels over the blurred mask.

    Args:
        images: (B, C, S, S).
        hidden: (B, 1, S, S) bool.
        deviation: Standard deviation of the Gaussian, in pixels.
    """
    places = torch.arange(images.shape[-1], device=images.device)
    kernel = (-((places[:, None] - places) ** 2) / (2 * deviation**2)).exp().to(images.dtype)
    seen = (~hidden).to(images.dtype)
    total, weight = kernel @ (images * seen) @ kernel, kernel @ seen @ kernel
    return (total + FAINT * mean_colour(images, hidden)) / (weight + FAINT)
