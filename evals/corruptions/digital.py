"""Contrast, elastic transform, pixelation and JPEG compression of ImageNet-C.

Every constant is from hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py. Images are (B, 3, H, W)
uint8, severities 1 to 5; lengths are pixels and do not follow the image's size.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.io import decode_jpeg, encode_jpeg

from cim_bench.evals.corruptions.ops import gaussian_weights, truncate, uniform

CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # what is left of the distance to the mean


# Amplitude and sigma of the displacement, greatest shift of the affine map's corners; 244 is the source's own slip.
ELASTIC_TRANSFORM = (
    (244 * 2, 244 * 0.7, 244 * 0.1),
    (244 * 2, 244 * 0.08, 244 * 0.2),
    (244 * 0.05, 244 * 0.01, 244 * 0.02),
    (244 * 0.07, 244 * 0.01, 244 * 0.02),
    (244 * 0.12, 244 * 0.01, 244 * 0.02),
)
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)  # share of the side that is kept
JPEG_COMPRESSION = (25, 18, 15, 10, 7)  # libjpeg's quality
AFFINE_STEPS = 32  # OpenCV's warpAffine rounds places to this part of a pixel
ELASTIC_CUT = 3.0  # sigmas


def contrast(images: Tensor, severity: int) -> Tensor:
    """Bring every value nearer to its channel's mean over the image."""
    pixels = images.float()
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    return truncate((pixels - mean) * CONTRAST[severity - 1] + mean)


def draw_elastic(source: torch.Generator, severity: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(3, 2) shifts in x and y of the affine map's corners, pixels, and (2, H, W) noise in [-1, 1) for x and y."""
    most = ELASTIC_TRANSFORM[severity - 1][2]
    return uniform(source, 3, 2, low=-most, high=most), uniform(source, 2, height, width, low=-1.0, high=1.0)


def elastic_transform(images: Tensor, severity: int, corners: Tensor, noise: Tensor) -> Tensor:
    """An affine warp, then a displacement by smoothed noise; linear interpolation and reflection in both.

    The warp reflects about the outermost pixels' centres, the displacement about their outer edges.

    Args:
        images: (B, 3, H, W) uint8.
        severity: 1 to 5.
        corners: (B, 3, 2) shifts of the three points that define the warp, x and y, pixels.
        noise: (B, 2, H, W) in [-1, 1), for x and y.
    """
    amplitude, sigma, _ = ELASTIC_TRANSFORM[severity - 1]
    height, width = images.shape[-2:]
    scale = torch.tensor((width, height), device=images.device)
    smooth_down, smooth_across = (
        smoothing_matrix(side, sigma, ELASTIC_CUT).to(images.device) for side in (height, width)
    )
    rows, columns = torch.meshgrid(
        *(torch.arange(side, device=images.device, dtype=torch.float32) for side in (height, width)), indexing="ij"
    )
    grid = torch.stack((columns, rows), dim=-1)  # (H, W, 2), x and y
    source = affine_places(grid, corners) * (2 / (scale - 1)) - 1
    warped = F.grid_sample(images.float(), source, padding_mode="reflection", align_corners=True)
    moved = grid + (smooth_down @ noise @ smooth_across.T * amplitude).permute(0, 2, 3, 1)
    source = (moved + 0.5) * (2 / scale) - 1
    return truncate(F.grid_sample(warped, source, padding_mode="reflection", align_corners=False))


def affine_places(grid: Tensor, corners: Tensor) -> Tensor:
    """Where the warp that moves three points by `corners` takes each pixel from, (B, H, W, 2), x and y.

    The points lie a third of the shorter side (rounded down) right and below, right and above, left and above the
    centre.
    """
    height, width = grid.shape[:2]
    reach = min(height, width) // 3
    signs = torch.tensor([(1, 1), (1, -1), (-1, -1)], dtype=torch.float64, device=grid.device)
    centre = torch.tensor((width // 2, height // 2), device=grid.device)
    before = centre + signs * reach
    after = before + corners
    ones = torch.ones_like(after[..., :1])
    inverse: Tensor = torch.linalg.solve(torch.cat((after, ones), dim=-1), before.expand_as(after))  # (B, 3, 2)
    x, y = grid[:1].double(), grid[:, :1].double()
    across, down, start = (part[:, None, None] for part in (inverse * AFFINE_STEPS).unbind(dim=1))
    places = x[..., :1] * across + (y[..., 1:] * down + start)
    return places.round_().float().mul_(1 / AFFINE_STEPS)


@functools.lru_cache(maxsize=16)
def smoothing_matrix(side: int, sigma: float, cut: float) -> Tensor:
    """(side, side) matrix of a Gaussian filter that reflects about the edges, as often as its reach asks for.

    Sigma is up to 171 pixels, so that the filter is longer than the image, and folding it into a matrix is exact.
    """
    weights = gaussian_weights(sigma, cut)
    reach = len(weights) // 2
    place = torch.arange(side)[:, None] + torch.arange(-reach, reach + 1)
    place = place.remainder(2 * side)
    place = torch.minimum(place, 2 * side - 1 - place)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, place, weights.expand(side, -1)).float()


def pixelate(images: Tensor, severity: int) -> Tensor:
    """Reduce with a box filter and enlarge again, both as Pillow does, which rounds after each direction."""
    height, width = images.shape[-2:]
    pixels = images.float()
    for dim, side in ((-1, width), (-2, height)):
        pixels = _box(pixels, dim, int(side * PIXELATE[severity - 1]))
    for dim, side in ((-1, width), (-2, height)):
        pixels = _box(pixels, dim, side)
    return pixels.to(torch.uint8)


def _box(pixels: Tensor, dim: int, size: int) -> Tensor:
    """Resize one dimension with Pillow's box filter; whole grey levels in and out."""
    places, weights = box_taps(pixels.shape[dim], size)
    if len(places) == 1:
        return pixels.index_select(dim, places[0].to(pixels.device))
    shape = (-1, 1) if dim == -2 else (-1,)
    total = torch.full((), 0.5, device=pixels.device)  # halves are rounded up
    for place, weight in zip(places, weights, strict=True):
        taken = pixels.index_select(dim, place.to(pixels.device))
        total = total + taken * weight.to(pixels.device).view(shape)
    return total.floor_()


@functools.lru_cache(maxsize=64)
def box_taps(before: int, after: int) -> tuple[Tensor, Tensor]:
    """Pillow's box filter from `before` to `after` pixels: places and weights, (taps, after) each.

    A pixel counts wholly if its centre is in the window of max(before / after, 1) pixels, the left end left out.
    """
    scale = before / after
    centre = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    reach = max(scale, 1.0) / 2
    distance = torch.arange(before, dtype=torch.float64) + 0.5 - centre[:, None]
    inside = (distance > -reach) & (distance <= reach)
    taps = int(inside.sum(1).max())
    places = inside.int().argmax(1) + torch.arange(taps)[:, None]
    counted = torch.arange(taps)[:, None] < inside.sum(1)
    return places.clamp(max=before - 1), (counted / inside.sum(1)).float()


def jpeg_compression(images: Tensor, severity: int) -> Tensor:
    """A JPEG round trip of low quality."""
    return jpeg(images, JPEG_COMPRESSION[severity - 1])


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Encode and decode with libjpeg, as Pillow's files of this quality (colour at half resolution).

    Args:
        images: (B, 3, H, W) uint8; the codec works on the CPU wherever they are.
        quality: 1 to 100.

    Returns:
        (B, 3, H, W) uint8, on the images' device.
    """
    decoded = [decode_jpeg(encode_jpeg(image, quality)) for image in images.cpu().contiguous()]
    return torch.stack(decoded).to(images.device)
