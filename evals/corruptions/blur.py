"""Defocus, glass, motion and zoom blur of ImageNet-C.

Every constant is from hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py. Images are (B, 3, H, W)
uint8, severities 1 to 5; lengths are pixels and do not follow the image's size.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cim_bench.evals.corruptions.ops import SLACK, gaussian_weights, motion, truncate, uniform, zoom_centre

DEFOCUS_BLUR = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))  # radius of the disc, sigma of its soft edge
GLASS_BLUR = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # sigma, greatest shift, rounds
MOTION_BLUR = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius and sigma of ImageMagick's blur


# End (not always left out: numpy.arange and its rounding decide, as in the source) and step of the zoom factors.
ZOOM_BLUR = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
MOTION_DEGREES = 45.0  # motion blur goes between this to the left and to the right of the horizontal
SMALL_DISC = 8  # pixels: the grid of discs up to this radius is of this radius


def defocus_blur(images: Tensor, severity: int) -> Tensor:
    """Correlation with a disc, by FFT; the border is reflected about the outermost pixels' centres."""
    radius, sigma = DEFOCUS_BLUR[severity - 1]
    reach = max(radius, SMALL_DISC)
    height, width = images.shape[-2:]
    shape = (fft_length(height + 2 * reach), fft_length(width + 2 * reach))
    spectrum = torch.fft.rfft2(F.pad(images.float(), (reach,) * 4, mode="reflect"), s=shape)
    # The disc is symmetric, so its correlation is its convolution; the wrapped part falls outside of the crop.
    blurred = torch.fft.irfft2(spectrum * _disc_spectrum(radius, sigma, shape).to(images.device), s=shape)
    return truncate(blurred[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width])


def disc(radius: int, sigma: float) -> Tensor:
    """The disc's weights, float64, square: 0 or 1 by distance, normalised, then smoothed (OpenCV GaussianBlur).

    The smoothing has 3 taps a side for radii up to 8 and 5 above, and reflects at the grid's border.
    """
    reach = max(radius, SMALL_DISC)
    squares = torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2
    weights = (squares[:, None] + squares <= radius**2).double()
    weights = weights / weights.sum()
    side = 1 if radius <= SMALL_DISC else 2
    taps = torch.exp(-(torch.arange(-side, side + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    return F.conv2d(F.pad(weights[None, None], (side,) * 4, mode="reflect"), kernel[None, None])[0, 0]


@functools.lru_cache(maxsize=16)
def _disc_spectrum(radius: int, sigma: float, shape: tuple[int, int]) -> Tensor:
    spectrum: Tensor = torch.fft.rfft2(disc(radius, sigma), s=shape)
    return spectrum.to(torch.complex64)


def fft_length(least: int) -> int:
    """The smallest product of twos, threes and fives that is not less than `least`."""
    length = least
    while 60**12 % length:  # 60^12 = 2^24 3^12 5^12: all such lengths below half a million divide it
        length += 1
    return length


def draw_glass(source: torch.Generator, severity: int, height: int, width: int) -> tuple[Tensor]:
    """(rounds, H - 2d, W - 2d) int64 in [0, 4 d^2): which of its neighbours each inner pixel takes its colour from."""
    _, most, rounds = GLASS_BLUR[severity - 1]
    return (torch.randint(4 * most**2, (rounds, height - 2 * most, width - 2 * most), generator=source),)


def glass_blur(images: Tensor, severity: int, choices: Tensor) -> Tensor:
    """Smooth, displace pixels, smooth again.

    The source displaces in a loop over the pixels, and means to swap two; its two values are views of one
    array, so that it copies: the pixel takes the colour of its partner, which stays. The published images are
    of that code, and so is this.

    Args:
        images: (B, 3, H, W) uint8.
        severity: 1 to 5.
        choices: (B, rounds, H - 2d, W - 2d) int64 from `draw_glass`.
    """
    sigma, most, rounds = GLASS_BLUR[severity - 1]
    pixels = smooth(images.float(), sigma).add_(SLACK).floor_()
    colours = pixels.transpose(0, 1).flatten(1)  # (3, B H W)
    for turn in range(rounds):
        colours = colours.index_select(1, glass_origins(choices[:, turn], most))
    return truncate(smooth(colours.view(pixels.transpose(0, 1).shape).transpose(0, 1), sigma))


def glass_origins(choices: Tensor, most: int) -> Tensor:
    """Where each pixel's colour comes from after one round of copying, exactly as if pixel by pixel.

    The loop goes through the pixels (row, column), most < row <= H - most and likewise the columns, from the
    last to the first. A pixel whose partner's turn was before gets what the partner had got by then, that is,
    the colour of the partner's partner, and so on; these chains are followed for all pixels at once, twice as far
    each time.

    Args:
        choices: (B, H - 2 most, W - 2 most) int64 in [0, (2 most)^2); the partner of choice k lies
            k // (2 most) - most rows down and k % (2 most) - most columns to the right.
        most: The greatest shift.

    Returns:
        (B H W,) int64, places in the flattened batch.
    """
    batch, rows, columns = choices.shape
    height, width = rows + 2 * most, columns + 2 * most
    inner = (slice(None), slice(most + 1, height - most + 1), slice(most + 1, width - most + 1))
    place = torch.arange(batch * height * width, device=choices.device).view(batch, height, width)
    partner = place.clone()
    near = torch.arange(-most, most, device=choices.device)
    steps = (near[:, None] * width + near).flatten()
    partner[inner] += steps.index_select(0, choices.flatten()).view(choices.shape)
    moves = torch.zeros_like(place, dtype=torch.bool)
    moves[inner] = True
    place, partner, moves = place.flatten(), partner.flatten(), moves.flatten()
    follow = torch.where((partner > place) & moves.index_select(0, partner), partner, place)
    while not (further := follow.index_select(0, follow)).equal(follow):
        follow = further
    return partner.index_select(0, follow)


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Gaussian filter up to 4 sigma with a replicated border (skimage.filters.gaussian), (B, C, H, W) float."""
    weights = gaussian_weights(sigma, 4.0).tolist()
    reach, (height, width) = len(weights) // 2, images.shape[-2:]
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    rows = torch.zeros_like(padded[..., :height, :])
    for k, weight in enumerate(weights):
        rows.add_(padded[..., k : k + height, :], alpha=weight)
    out = torch.zeros_like(images)
    for k, weight in enumerate(weights):
        out.add_(rows[..., k : k + width], alpha=weight)
    return out


def draw_motion(source: torch.Generator, _severity: int, _height: int, _width: int) -> tuple[Tensor]:
    """The direction in degrees, a scalar."""
    return (uniform(source, low=-MOTION_DEGREES, high=MOTION_DEGREES),)


def motion_blur(images: Tensor, severity: int, degrees: Tensor) -> Tensor:
    """ImageMagick's motion blur along `degrees` (B,); rounded, as ImageMagick writes 8-bit files."""
    radius, sigma = MOTION_BLUR[severity - 1]
    return truncate(motion(images.float(), radius, sigma, degrees) + 0.5)


def zoom_blur(images: Tensor, severity: int) -> Tensor:
    """The mean of the image and its enlargements about the centre; the first of these is the image again."""
    end, step = ZOOM_BLUR[severity - 1]
    factors = np.arange(1, end, step).tolist()
    pixels = images.float()
    total = pixels * 2
    for factor in factors[1:]:
        total += zoom_centre(pixels, factor)
    return truncate(total / (len(factors) + 1))
