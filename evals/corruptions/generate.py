"""The fifteen corruptions of ImageNet-C (Hendrycks & Dietterich, ICLR 2019), batched, for CPU or accelerator.

The published images were made once, at 224 pixels, and saved as JPEG of quality 85; use those for a figure that is
to compare with published ones. These functions make the same damage on the fly, from the constants and the arithmetic
of hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py (motion blur and the fall of snow from
ImageMagick's source, which that calls). Other image sizes work, from 32 pixels: all lengths (radii, shifts,
sigmas) stay those of 224 pixels, so that a smaller image suffers more from blurs and the elastic transform.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cim_bench.evals.corruptions import blur, digital, noise, weather
from cim_bench.evals.corruptions.digital import jpeg
from cim_bench.evals.corruptions.ops import generator
from cim_bench.evals.corruptions.weather import frost_identity, frost_source

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "VERSION",
    "corrupt",
    "corrupt_as_released",
    "frost_identity",
    "frost_source",
    "identity",
    "jpeg",
]
VERSION = 1  # raise it whenever other pixels come out
SEVERITIES = (1, 2, 3, 4, 5)
RELEASED_QUALITY = 85  # of the published set's JPEG files (make_imagenet_c.py, saving)
LEAST_SIDE = 32  # pixels; defocus_blur reflects up to 10 at each border
Draw = Callable[[torch.Generator, int, int, int], tuple[Tensor, ...]]


def _no_draws(_source: torch.Generator, _severity: int, _height: int, _width: int) -> tuple[Tensor, ...]:
    return ()


# By canonical name and in canonical order: what draws for one sample, and what applies it to a batch.
_TABLE: dict[str, tuple[Draw, Callable[..., Tensor]]] = {
    "gaussian_noise": (noise.draw_normal, noise.gaussian_noise),
    "shot_noise": (noise.draw_uniform, noise.shot_noise),
    "impulse_noise": (noise.draw_uniform, noise.impulse_noise),
    "defocus_blur": (_no_draws, blur.defocus_blur),
    "glass_blur": (blur.draw_glass, blur.glass_blur),
    "motion_blur": (blur.draw_motion, blur.motion_blur),
    "zoom_blur": (_no_draws, blur.zoom_blur),
    "snow": (weather.draw_snow, weather.snow),
    "frost": (weather.draw_frost, weather.frost),
    "fog": (weather.draw_fog, weather.fog),
    "brightness": (_no_draws, weather.brightness),
    "contrast": (_no_draws, digital.contrast),
    "elastic_transform": (digital.draw_elastic, digital.elastic_transform),
    "pixelate": (_no_draws, digital.pixelate),
    "jpeg_compression": (_no_draws, digital.jpeg_compression),
}
CORRUPTIONS: tuple[str, ...] = tuple(_TABLE)


def corrupt(images: Tensor, name: str, severity: int, seeds: Tensor) -> Tensor:
    """Damage a batch of images.

    A sample's result depends on its pixels, the name, the severity and its own seed alone. Draws are made on
    the CPU, so that they are the same on every device; there, images are worked on one by one, because a batch would
    only leave the processor's cache, and cannot touch each other even in rounding.

    Args:
        images: (B, 3, H, W) uint8, H and W at least 32.
        name: One of `CORRUPTIONS`.
        severity: 1 to 5.
        seeds: (B,) int64; the lower 32 bits count.

    Returns:
        (B, 3, H, W) uint8 on the images' device, before the JPEG step of the published set.

    Raises:
        ValueError: Naming the choices.
    """
    _check(images, name, severity, seeds)
    draw, apply = _TABLE[name]
    height, width = images.shape[-2:]
    together = len(images) if images.device.type != "cpu" else 1
    done = []
    for part, few in zip(torch.split(images, together), torch.split(seeds, together), strict=True):
        draws = [draw(generator(seed, name, severity), severity, height, width) for seed in few.tolist()]
        stacked = [torch.stack(values).to(images.device) for values in zip(*draws, strict=True)]
        done.append(apply(part, severity, *stacked))
    return torch.cat(done)


def corrupt_as_released(images: Tensor, name: str, severity: int, seeds: Tensor) -> Tensor:
    """`corrupt`, then the JPEG round trip of quality 85 that the published images went through."""
    return jpeg(corrupt(images, name, severity, seeds), RELEASED_QUALITY)


def identity() -> dict[str, str]:
    """What generated corruptions depend on beside images and seeds: the version of this code, and the frost."""
    return {"corruptions": str(VERSION), "frost": frost_identity()}


def _check(images: Tensor, name: str, severity: int, seeds: Tensor) -> None:
    if name not in _TABLE:
        raise ValueError(f"no corruption {name!r}; choose one of {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"no severity {severity!r}; choose one of {', '.join(map(str, SEVERITIES))}")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < LEAST_SIDE:
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}; give torch.uint8 (B, 3, H, W) "
            f"with H and W of {LEAST_SIDE} at least"
        )
    if seeds.dtype != torch.int64 or seeds.shape != images.shape[:1]:
        raise ValueError(
            f"seeds are {seeds.dtype} {tuple(seeds.shape)}; give torch.int64 ({len(images)},), one an image"
        )
