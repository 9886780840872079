"""Every corruption against a computation of the published definition of its own, in NumPy, SciPy, scikit-image, Pillow.

Source of the definitions: hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py. Random corruptions are given
the same draws. Results may differ by one grey level, because a value that is exact in one arithmetic can be a
hair below in the other, and both are cut to whole levels.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.color
import skimage.filters
import torch
from numpy.typing import NDArray
from PIL import Image

from cim_bench.evals.corruptions import blur, digital, noise, weather
from cim_bench.evals.corruptions.generate import CORRUPTIONS, SEVERITIES

Array = NDArray[np.float64]
BY_HAND = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "elastic_transform": (
        (488.0, 170.8, 24.4),
        (488.0, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": (25, 18, 15, 10, 7),
}


@pytest.fixture(scope="module")
def photo(photos_root: Path) -> dict[int, torch.Tensor]:
    """One real photograph as (1, 3, side, side) uint8, by side; 64 is as the crop is stored."""
    with Image.open(photos_root / "val" / "coffee" / "003.png") as image:
        sides = {side: np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for side in (64, 96, 224)}
    return {side: torch.from_numpy(array.copy()).permute(2, 0, 1)[None] for side, array in sides.items()}


def unit(image: torch.Tensor) -> Array:
    """(H, W, 3) in [0, 1]."""
    return image[0].permute(1, 2, 0).numpy() / 255.0


def levels(array: Array) -> Array:
    """What the source saves of values in [0, 1]: clipped, times 255, cut."""
    return np.uint8(np.clip(array, 0, 1) * 255).astype(float)


def gap(ours: torch.Tensor, published: Array) -> Array:
    """Grey levels between our (1, 3, H, W) uint8 and (H, W, 3)."""
    assert ours.dtype == torch.uint8
    return np.abs(ours[0].permute(1, 2, 0).numpy().astype(float) - published)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_severities_by_hand() -> None:
    found = vars(noise) | vars(blur) | vars(weather) | vars(digital)
    assert tuple(BY_HAND) == CORRUPTIONS
    for name, published in BY_HAND.items():
        assert np.allclose(found[name.upper()], published, rtol=1e-12, atol=0), name


def test_numbers_of_zoom_factors_by_hand() -> None:
    """numpy.arange(1, 1.11, 0.01) has ceil(0.1100000000000001 / 0.01) = 12, to 1.16 ceil(15.999...) = 16."""
    assert [len(np.arange(1, end, step)) for end, step in blur.ZOOM_BLUR] == [12, 16, 11, 13, 11]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise(photo: dict[int, torch.Tensor], severity: int) -> None:
    normal = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    published = unit(photo[96]) + normal[0].permute(1, 2, 0).numpy() * BY_HAND["gaussian_noise"][severity - 1]
    assert gap(noise.gaussian_noise(photo[96], severity, normal), levels(published)).max() <= 1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_is_the_poisson_quantile(photo: dict[int, torch.Tensor], severity: int) -> None:
    """A draw within float32's 1e-7 of a step of the distribution may count one photon more or less."""
    chances = draws(1, 3, 64, 64).clamp_(min=1e-7)
    white = BY_HAND["shot_noise"][severity - 1]
    counts = scipy.stats.poisson.ppf(chances[0].permute(1, 2, 0).numpy(), unit(photo[64]) * white)
    off = gap(noise.shot_noise(photo[64], severity, chances), levels(counts / white))
    assert (off > 1).mean() <= 1e-4
    assert off.max() <= 255 / white + 1


def test_shot_noise_of_black_and_white() -> None:
    chances = draws(1, 3, 64, 64)
    for severity in SEVERITIES:
        assert not noise.shot_noise(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), severity, chances).any()
    white = noise.shot_noise(torch.full((1, 3, 64, 64), 255, dtype=torch.uint8), 1, chances).float().mean() / 255
    expected = scipy.stats.poisson(60).expect(lambda k: np.minimum(k, 60) / 60)
    assert white == pytest.approx(expected, abs=4 * 0.07 / math.sqrt(chances.numel()))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise(photo: dict[int, torch.Tensor], severity: int) -> None:
    chances, share = draws(1, 3, 96, 96), BY_HAND["impulse_noise"][severity - 1]
    ours = noise.impulse_noise(photo[96], severity, chances)
    expected = [
        255 if u < np.float32(share / 2) else 0 if u < np.float32(share) else v
        for u, v in zip(chances.flatten().tolist(), photo[96].flatten().tolist(), strict=True)
    ]
    assert ours.flatten().tolist() == expected


def disc(radius: int, sigma: float) -> Array:
    reach = max(8, radius)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            kernel[y + reach, x + reach] = x * x + y * y <= radius * radius
    kernel /= kernel.sum()
    size = 3 if radius <= 8 else 5
    taps = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        kernel = scipy.ndimage.correlate1d(kernel, taps / taps.sum(), axis=axis, mode="mirror")
    return kernel


@pytest.mark.parametrize(("severity", "side"), [(1, 96), (2, 96), (3, 64), (4, 96), (5, 96), (5, 224)])
def test_defocus_blur(photo: dict[int, torch.Tensor], severity: int, side: int) -> None:
    kernel = disc(*BY_HAND["defocus_blur"][severity - 1])
    channels = [
        scipy.ndimage.correlate(channel, kernel, mode="mirror") for channel in unit(photo[side]).transpose(2, 0, 1)
    ]
    assert gap(blur.defocus_blur(photo[side], severity), levels(np.stack(channels, -1))).max() <= 1


def test_a_disc_by_hand() -> None:
    """Radius 3 has 29 lattice points (by rows: 1 5 5 7 5 5 1), hardly smoothed at sigma 0.1."""
    rows = (blur.disc(3, 0.1) * 29).sum(1)
    assert rows[5:12].tolist() == pytest.approx([1, 5, 5, 7, 5, 5, 1])


@pytest.mark.parametrize("severity", SEVERITIES)
def test_glass_blur_pixel_by_pixel(photo: dict[int, torch.Tensor], severity: int) -> None:
    sigma, most, rounds = BY_HAND["glass_blur"][severity - 1]
    image, side = photo[64], 64
    (choices,) = blur.draw_glass(torch.Generator().manual_seed(severity), severity, side, side)
    x = np.uint8(skimage.filters.gaussian(unit(image), sigma=sigma, channel_axis=-1) * 255)
    for turn in range(rounds):
        for h in range(side - most, most, -1):
            for w in range(side - most, most, -1):
                dy, dx = divmod(int(choices[turn, h - most - 1, w - most - 1]), 2 * most)
                other = (h + dy - most, w + dx - most)
                x[h, w], x[other] = x[other], x[h, w]  # views: what the source writes, and what it does, is a copy
    published = skimage.filters.gaussian(x / 255.0, sigma=sigma, channel_axis=-1)
    assert gap(blur.glass_blur(image, severity, choices[None]), levels(published)).max() <= 1


def test_glass_choices_are_uniform() -> None:
    (choices,) = blur.draw_glass(torch.Generator().manual_seed(0), 5, 224, 224)
    counts = choices.flatten().bincount(minlength=64)
    assert choices.shape == (2, 216, 216)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-4


def magick(array: Array, radius: int, sigma: float, degrees: float) -> Array:
    """ImageMagick's motion blur, pixel by pixel: array is (H, W, ...)."""
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2.0 * sigma * sigma))
    angle, out = np.deg2rad(degrees), np.zeros_like(array)
    height, width = array.shape[:2]
    for i, weight in enumerate(weights / weights.sum()):
        rows = np.clip(np.arange(height) + int(np.ceil(i * np.sin(angle) - 0.5)), 0, height - 1)
        columns = np.clip(np.arange(width) + int(np.ceil(i * np.cos(angle) - 0.5)), 0, width - 1)
        out += weight * array[rows][:, columns]
    return out


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("degrees", [-45.0, -17.3, 0.0, 31.0])
def test_motion_blur(photo: dict[int, torch.Tensor], severity: int, degrees: float) -> None:
    """Rounded, not cut: ImageMagick rounds to 8 bits."""
    published = np.rint(magick(unit(photo[96]) * 255, *BY_HAND["motion_blur"][severity - 1], degrees))
    assert gap(blur.motion_blur(photo[96], severity, torch.tensor([degrees])), published).max() <= 1


def clipped_zoom(array: Array, factor: float) -> Array:
    side = array.shape[0]
    crop = int(np.ceil(side / factor))
    top = (side - crop) // 2
    zooms = (factor, factor, 1)[: array.ndim]
    # mode="nearest": rounding may put the last place a hair outside, which the default fills with black
    large = scipy.ndimage.zoom(array[top : top + crop, top : top + crop], zooms, order=1, mode="nearest")
    trim = (large.shape[0] - side) // 2
    return large[trim : trim + side, trim : trim + side]


@pytest.mark.parametrize(("severity", "side"), [(1, 96), (2, 96), (3, 96), (4, 64), (5, 96), (1, 224)])
def test_zoom_blur(photo: dict[int, torch.Tensor], severity: int, side: int) -> None:
    x, factors = unit(photo[side]), np.arange(1, *BY_HAND["zoom_blur"][severity - 1])
    published = (x + sum(clipped_zoom(x, factor) for factor in factors)) / (len(factors) + 1)
    assert gap(blur.zoom_blur(photo[side], severity), levels(published)).max() <= 1


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("degrees", [-120.0, -45.0])
def test_snow(photo: dict[int, torch.Tensor], severity: int, degrees: float) -> None:
    """A flake that is cut to one 8-bit level more or less before the motion can move a pixel by one more level."""
    mean, deviation, factor, threshold, radius, sigma, keep = BY_HAND["snow"][severity - 1]
    normal = torch.randn(1, 1, 96, 96, generator=torch.Generator().manual_seed(severity))
    layer = clipped_zoom(normal[0, 0].double().numpy() * deviation + mean, factor)
    layer[layer < threshold] = 0
    layer = np.uint8(np.clip(layer, 0, 1) * 255).astype(float)
    layer = np.rint(magick(layer, radius, sigma, degrees))[..., None] / 255
    x = unit(photo[96])
    grey = (x @ [0.299, 0.587, 0.114])[..., None]
    x = keep * x + (1 - keep) * np.maximum(x, grey * 1.5 + 0.5)
    off = gap(weather.snow(photo[96], severity, normal, torch.tensor([degrees])), levels(x + layer + layer[::-1, ::-1]))
    assert off.max() <= 2
    assert (off > 1).mean() <= 1e-3


def diamond_square(side: int, decay: float, stream: list[float]) -> Array:
    """Height map, point by point, wrapping around."""
    taken = iter(stream)
    heights = np.zeros((side, side))
    step, wibble = side, 100.0
    while step >= 2:
        half, starts = step // 2, range(0, side, step)
        for y in starts:
            for x in starts:
                corners = [heights[(y + a) % side, (x + b) % side] for a in (0, step) for b in (0, step)]
                heights[y + half, x + half] = sum(corners) / 4 + wibble * wibble * next(taken)
        for down, across in ((0, half), (half, 0)):
            for y in starts:
                for x in starts:
                    row, column = y + down, x + across
                    around = [(row - half, column), (row + half, column), (row, column - half), (row, column + half)]
                    total = sum(heights[r % side, c % side] for r, c in around)
                    heights[row, column] = total / 4 + wibble * wibble * next(taken)
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return heights / heights.max()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog(photo: dict[int, torch.Tensor], severity: int) -> None:
    strength, decay = BY_HAND["fog"][severity - 1]
    (stream,) = weather.draw_fog(torch.Generator().manual_seed(severity), severity, 96, 96)
    assert len(stream) == 128 * 128 - 1
    x = unit(photo[96])
    clouds = diamond_square(128, decay, stream.tolist())[:96, :96, None]
    published = levels((x + strength * clouds) * x.max() / (x.max() + strength))
    assert gap(weather.fog(photo[96], severity, stream[None]), published).max() <= 1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness(photo: dict[int, torch.Tensor], severity: int) -> None:
    image = photo[96].clone()
    image[..., :5, :5] = 0  # black has no hue
    hsv = skimage.color.rgb2hsv(unit(image))
    hsv[..., 2] = np.clip(hsv[..., 2] + BY_HAND["brightness"][severity - 1], 0, 1)
    assert gap(weather.brightness(image, severity), levels(skimage.color.hsv2rgb(hsv))).max() <= 1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast(photo: dict[int, torch.Tensor], severity: int) -> None:
    x = unit(photo[96])
    means = x.mean((0, 1))
    published = (x - means) * BY_HAND["contrast"][severity - 1] + means
    assert gap(digital.contrast(photo[96], severity), levels(published)).max() <= 1


def affine(source: Array, target: Array) -> Array:
    """(2, 3) matrix that takes three source points (x, y) to the target points."""
    return np.stack([np.linalg.solve(np.c_[source, np.ones(3)], target[:, axis]) for axis in (0, 1)])


@pytest.mark.parametrize(("severity", "side"), [(1, 96), (2, 96), (3, 64), (4, 96), (5, 96), (1, 224), (5, 224)])
def test_elastic_transform(photo: dict[int, torch.Tensor], severity: int, side: int) -> None:
    """Places are rounded to 1/32 pixel; a tie that falls the other way moves a sharp edge by more than a level."""
    alpha, sigma, _ = BY_HAND["elastic_transform"][severity - 1]
    corners, field = digital.draw_elastic(torch.Generator().manual_seed(severity), severity, side, side)
    centre, reach = side // 2, side // 3
    before = np.array([[centre + reach] * 2, [centre + reach, centre - reach], [centre - reach] * 2], dtype=float)
    forward = np.vstack([affine(before, before + corners.double().numpy()), [0, 0, 1]])
    y, x = np.mgrid[:side, :side].astype(float)
    back = np.linalg.inv(forward) @ np.stack([x.ravel(), y.ravel(), np.ones(side * side)])
    places = [np.rint(part.reshape(side, side) * 32) / 32 for part in (back[1], back[0])]
    smoothed = [
        skimage.filters.gaussian(part, sigma, mode="reflect", truncate=3) * alpha for part in field.double().numpy()
    ]
    channels = [
        scipy.ndimage.map_coordinates(
            scipy.ndimage.map_coordinates(channel, places, order=1, mode="mirror"),
            [y + smoothed[1], x + smoothed[0]],
            order=1,
            mode="reflect",
        )
        for channel in unit(photo[side]).transpose(2, 0, 1)
    ]
    off = gap(
        digital.elastic_transform(photo[side], severity, corners[None], field[None]), levels(np.stack(channels, -1))
    )
    assert (off > 1).mean() <= 1e-4


@pytest.mark.parametrize("side", [64, 96, 224])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_is_pillows(photo: dict[int, torch.Tensor], severity: int, side: int) -> None:
    image = Image.fromarray(photo[side][0].permute(1, 2, 0).numpy())
    small = int(side * BY_HAND["pixelate"][severity - 1])
    image = image.resize((small, small), Image.Resampling.BOX).resize((side, side), Image.Resampling.BOX)
    assert gap(digital.pixelate(photo[side], severity), np.asarray(image, dtype=float)).max() == 0


@pytest.mark.parametrize("quality", [25, 18, 15, 10, 7, 85])
@pytest.mark.parametrize("side", [96, 224])
def test_jpeg_is_pillows(photo: dict[int, torch.Tensor], quality: int, side: int) -> None:
    """The published files were also saved with optimize=True, which changes their length, not their pixels."""
    file = io.BytesIO()
    image = Image.fromarray(photo[side][0].permute(1, 2, 0).numpy())
    image.save(file, "JPEG", quality=quality, optimize=True)
    assert gap(digital.jpeg(photo[side], quality), np.asarray(Image.open(file), dtype=float)).max() == 0


def test_jpeg_compression_is_jpeg_at_the_published_quality(photo: dict[int, torch.Tensor]) -> None:
    for severity in SEVERITIES:
        quality = BY_HAND["jpeg_compression"][severity - 1]
        assert digital.jpeg_compression(photo[64], severity).equal(digital.jpeg(photo[64], quality))
