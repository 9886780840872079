"""Snow, frost, fog and brightness of ImageNet-C.

Every constant is from hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py. Images are (B, 3, H, W)
uint8, severities 1 to 5; lengths are pixels and do not follow the image's size.

Frost lays one of five photographs over the image. Their licence is not known, so that they are not part of
this package: they are taken from the folder that the environment variable CIM_BENCH_FROST names, or from an
installed ``imagecorruptions`` package, which ships them; else five textures of our own stand in. Theirs have the
photographs' mean colour and contrast, yet figures made with them do not compare with published ones:
`frost_source` says which it is, and belongs into every record.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cim_bench.evals.corruptions.ops import motion, truncate, uniform, zoom_centre

# Mean and standard deviation of the flakes, enlargement, threshold, radius and sigma of their motion, share of the
# image that stays as it is.
SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # weights of image and frost
FOG = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))  # strength, decay of the plasma's detail
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to the value of HSV
SNOW_DEGREES = (-135.0, -45.0)
LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (OpenCV's COLOR_RGB2GRAY, ITU-R BT.601)
PLASMA = 100.0  # amplitude of the first wibble; the source squares it


# The source draws one of five of its six files: frost6.jpg is never used.
FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
FROST_VARIABLE, FROST_PACKAGE = "CIM_BENCH_FROST", "imagecorruptions"


# Mean and standard deviation of red, green, blue over the five photographs, measured by us (imagecorruptions 1.1.2).
FROST_MEAN, FROST_STD = (145.9, 167.2, 178.9), (28.5, 26.4, 26.3)
TEXTURE_SIZE = (384, 576)  # of our textures, pixels, about that of the photographs
STREAK = 24  # steps along a crystal, of 1.5 pixels


def draw_snow(source: torch.Generator, _severity: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(1, H, W) normal draws of mean 0 and variance 1, and the direction in degrees, a scalar."""
    flakes = torch.randn(1, height, width, generator=source)
    return flakes, uniform(source, low=SNOW_DEGREES[0], high=SNOW_DEGREES[1])


def snow(images: Tensor, severity: int, normal: Tensor, degrees: Tensor) -> Tensor:
    """Paler colours under falling flakes: enlarged thresholded noise, blurred by motion, and the same upside down.

    Args:
        images: (B, 3, H, W) uint8.
        severity: 1 to 5.
        normal: (B, 1, H, W) draws of mean 0 and variance 1.
        degrees: (B,) direction of the fall.
    """
    mean, deviation, factor, threshold, radius, sigma, keep = SNOW[severity - 1]
    flakes = zoom_centre(normal * deviation + mean, factor)
    flakes = flakes.masked_fill(flakes < threshold, 0).clamp_(0, 1).mul_(255).floor_()  # 8 bits before the motion
    flakes = (motion(flakes, int(radius), sigma, degrees) + 0.5).floor_()  # and after it
    pixels = images.float()
    red, green, blue = torch.split(pixels, 1, dim=1)
    pale = (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue) * 1.5 + 0.5 * 255
    pixels = keep * pixels + (1 - keep) * torch.maximum(pixels, pale)
    return truncate(pixels + flakes + flakes.flip(-1, -2))


def draw_frost(source: torch.Generator, _severity: int, _height: int, _width: int) -> tuple[Tensor]:
    """(3,) uniform in [0, 1): which photograph, and how far down and right of it."""
    return (uniform(source, 3),)


def frost(images: Tensor, severity: int, draws: Tensor) -> Tensor:
    """Weighted sum of the image and a random part of a random frost photograph, of the image's size."""
    strength, cover = FROST[severity - 1]
    height, width = images.shape[-2:]
    parts = [frost_part(which, down, right, height, width) for which, down, right in draws.tolist()]
    return truncate(images * strength + torch.stack(parts).to(images.device) * cover)


def frost_part(which: float, down: float, right: float, height: int, width: int) -> Tensor:
    """(3, H, W) uint8: part of one of `frost_photographs`; the first three arguments are in [0, 1)."""
    chosen = frost_photographs(frost_folder(), height, width)[int(which * len(FROST_FILES))]
    top = int(down * (chosen.shape[1] - height))
    left = int(right * (chosen.shape[2] - width))
    return chosen[:, top : top + height, left : left + width]


def frost_source() -> Literal["published", "procedural"]:
    """Whether frost is made of the published photographs or of textures of ours; say it in every record."""
    return "published" if frost_folder() else "procedural"


def frost_identity() -> str:
    """Hash of the published photographs that are used, or ``procedural`` for textures of ours."""
    folder = frost_folder()
    if folder is None:
        return frost_source()
    digest = hashlib.sha256()
    for name in FROST_FILES:
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def frost_folder() -> Path | None:
    """Where the published photographs are; nothing is imported for it.

    Raises:
        ValueError: If CIM_BENCH_FROST names a folder that lacks one of them.
    """
    if named := os.environ.get(FROST_VARIABLE):
        folder = Path(named).expanduser()
        if lost := [name for name in FROST_FILES if not (folder / name).is_file()]:
            raise ValueError(f"{FROST_VARIABLE}={named} has no {', '.join(lost)}; name a folder that has, or unset it")
        return folder
    spec = importlib.util.find_spec(FROST_PACKAGE)
    folder = Path(spec.origin if spec and spec.origin else "missing").parent / "frost"
    return folder if all((folder / name).is_file() for name in FROST_FILES) else None


@functools.lru_cache(maxsize=8)
def frost_photographs(folder: Path | None, height: int, width: int) -> tuple[Tensor, ...]:
    """The five photographs of `folder`, or our five textures, (3, FH, FW) uint8, with FH > height, FW > width.

    As they are where they are large enough (for the published 224 pixels all are), else enlarged to be.
    """
    if folder is None:
        photographs = [Image.fromarray(frost_texture(i).permute(1, 2, 0).numpy()) for i in range(len(FROST_FILES))]
    else:
        photographs = [Image.open(folder / name).convert("RGB") for name in FROST_FILES]
    found = []
    for photograph in photographs:
        scale = max(1.0, (width + 1) / photograph.width, (height + 1) / photograph.height)
        size = (math.ceil(photograph.width * scale), math.ceil(photograph.height * scale))
        resized = photograph if scale == 1.0 else photograph.resize(size, Image.Resampling.BICUBIC)
        found.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous())
    return tuple(found)


@functools.cache
def frost_texture(index: int) -> Tensor:
    """A texture that stands in for a frost photograph: bright needles along a bent field, in patches, (3, H, W) uint8.

    White noise is averaged along a direction that changes slowly (line integral convolution).
    """
    source = torch.Generator().manual_seed(index)
    height, width = TEXTURE_SIZE

    def clouds(coarse: int) -> Tensor:
        cells = torch.randn(1, 1, coarse, coarse * 3 // 2, generator=source)
        return F.interpolate(cells, size=TEXTURE_SIZE, mode="bicubic", align_corners=True)[0, 0]

    angle = clouds(6) * math.pi
    step = torch.stack((angle.cos() * 3 / width, angle.sin() * 3 / height), dim=-1)  # of 2 in all: 1.5 pixels
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    place = torch.stack((columns, rows), dim=-1)
    fields = torch.cat((torch.randn(1, 1, height, width, generator=source), step.permute(2, 0, 1)[None]), dim=1)
    needles = torch.zeros(TEXTURE_SIZE)
    for _ in range(STREAK):
        taken = F.grid_sample(fields, place[None], padding_mode="reflection", align_corners=True)[0]
        needles += taken[0]
        place = place + taken[1:].permute(1, 2, 0)
    relief = needles / needles.std() + clouds(5) + 0.7 * clouds(24)
    relief = (relief - relief.mean()) / relief.std()
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (FROST_MEAN, FROST_STD))
    return truncate(mean + deviation * relief)


def draw_fog(source: torch.Generator, _severity: int, height: int, width: int) -> tuple[Tensor]:
    """(S^2 - 1,) uniform in [-1, 1), where S is the side of the plasma: the power of two that holds the image."""
    side = 1 << (max(height, width) - 1).bit_length()
    return (uniform(source, side * side - 1, low=-1.0, high=1.0),)


def fog(images: Tensor, severity: int, draws: Tensor) -> Tensor:
    """Add plasma, and divide so that the image's brightest value stays."""
    strength, decay = FOG[severity - 1]
    height, width = images.shape[-2:]
    pixels = images.float()
    brightest = pixels.amax(dim=(1, 2, 3), keepdim=True)
    clouds = plasma(draws, decay)[:, None, :height, :width]
    # In [0, 1] this is (x + strength * plasma) * max / (max + strength); the source has 0 / strength for a black image.
    return truncate((pixels + (255 * strength) * clouds) * (brightest / (brightest + 255 * strength)))


def plasma(draws: Tensor, decay: float) -> Tensor:
    """Diamond-square height maps that wrap around.

    Each level halves the grid: centres of squares get the mean of their four corners, then centres of edges
    the mean of their two corners and two centres, each plus a draw times a wibble that decays (the source
    multiplies the wibble by draws that span plus or minus the wibble, so that it counts squared).

    Args:
        draws: (B, S^2 - 1) in [-1, 1): level by level, the centres, then the edges along rows, then along columns.
        decay: What the wibble is divided by at each level.

    Returns:
        (B, S, S) in [0, 1], each map reaching both.
    """
    batch, side = len(draws), math.isqrt(draws.shape[1] + 1)
    heights = draws.new_zeros(batch, side, side)
    step, wibble, used = side, PLASMA, 0
    while step >= 2:
        half, cells = step // 2, side // step
        noise = draws[:, used : used + 3 * cells * cells].view(batch, 3, cells, cells) * wibble**2
        corners = heights[:, ::step, ::step]
        rows = corners + corners.roll(-1, 1)
        centres = (rows + rows.roll(-1, 2)) / 4 + noise[:, 0]
        beside = corners + corners.roll(-1, 2) + centres + centres.roll(1, 1)
        above = rows + centres + centres.roll(1, 2)
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = beside / 4 + noise[:, 1]
        heights[:, half::step, ::step] = above / 4 + noise[:, 2]
        step, wibble, used = half, wibble / decay, used + 3 * cells * cells
    heights -= heights.amin(dim=(1, 2), keepdim=True)
    return heights / heights.amax(dim=(1, 2), keepdim=True)


def brightness(images: Tensor, severity: int) -> Tensor:
    """Raise the value of HSV. Hue and saturation stay, so that each pixel is scaled; a black one becomes grey."""
    pixels = images.float()
    value = pixels.amax(dim=1, keepdim=True)
    raised = (value + 255 * BRIGHTNESS[severity - 1]).clamp_(max=255)
    return truncate(torch.where(value > 0, pixels * (raised / value), raised))
