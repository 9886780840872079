"""Transforms from a decoded image to a tensor of pixels; the backbone normalises."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision import transforms as T
from torchvision.transforms import functional as F

from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD

# timm's RandAugment: magnitude (from 10 on it is always 10), its deviation and limit, operations an image, ...
RAND_AUGMENT = r"rand(-(m(10|\d)|mstd\d+(\.\d+)?|mmax\d+|n[1-9]|p(0\.\d+|1(\.0)?)|inc[01]|t\w+))*"


def to_uint8(image: Image.Image) -> Tensor:
    """PIL image to (3, H, W) uint8; divided by 255 on the device."""
    return torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class EvalTransform:
    """Resize the short side so that `size` is `crop_pct` of it (bicubic), then crop the centre.

    Attributes:
        size: Output height and width in pixels.
        crop_pct: 0.875 is the usual 224 of 256; 1.0 crops nothing of a square image.
    """

    size: int
    crop_pct: float

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, size, size) uint8."""
        image = F.resize(image, math.floor(self.size / self.crop_pct), interpolation=F.InterpolationMode.BICUBIC)
        return to_uint8(F.center_crop(image, [self.size, self.size]))


@dataclass(frozen=True)
class StoredPixels:
    """No resize and no crop: the image is stored at `size`, as ImageNet-C is, and another size is refused.

    Attributes:
        size: Height and width in pixels.
    """

    size: int

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, size, size) uint8.

        Raises:
            ValueError: If the image has another size.
        """
        if image.size != (self.size, self.size):
            width, height = image.size
            raise ValueError(
                f"an image of {width}x{height} pixels, where every one must be stored at {self.size}x{self.size}; "
                "this set was resized: use the released files"
            )
        return to_uint8(image)


def check_auto_augment(name: str, policy: str) -> None:
    """Check a RandAugment string of timm, of which timm itself passes over what it does not understand.

    Args:
        name: What the sentence calls it.
        policy: Such as ``rand-m9-mstd0.5-inc1``; empty for none.

    Raises:
        ValueError: If it is none.
    """
    fits = not policy or re.fullmatch(RAND_AUGMENT, policy) is not None
    try:
        if policy and fits:
            rand_augment_transform(policy, {})
    except (AssertionError, KeyError, ValueError):  # a set of transforms that this timm does not have
        fits = False
    if not fits:
        raise ValueError(
            f"{name} is {policy!r}; it must be empty, or rand and sections of timm's RandAugment: m0 to m10, mstd, "
            "mmax, n, p, inc, t; e.g. rand-m9-mstd0.5-inc1"
        )


class FinetuneTransform:
    """Random resized crop, flip, RandAugment and random erasing as timm and MAE chain them.

    timm leaves colour jitter out where RandAugment is on, and so does this (timm, ``transforms_imagenet_train``).

    Args:
        size: Output height and width in pixels.
        auto_augment: timm's RandAugment string; empty for none.
        reprob: Probability of erasing a box with normal noise (in normalised space, as timm does).
        scale: Area range of the crop.
        mean: The model's, per channel of an image in [0, 1]; also the colour of RandAugment's borders.
        std: The model's.
    """

    def __init__(
        self,
        size: int,
        *,
        auto_augment: str,
        reprob: float,
        scale: tuple[float, float],
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        fill = tuple(round(255 * value) for value in mean)
        steps = [
            T.RandomResizedCrop(size, scale=scale, interpolation=F.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(),
        ]
        if auto_augment:
            hparams = {"translate_const": int(size * 0.45), "img_mean": fill, "interpolation": Image.Resampling.BICUBIC}
            steps.append(rand_augment_transform(auto_augment, hparams))
        self.augment = T.Compose(steps)
        self.erase = RandomErasing(reprob, mode="pixel", device="cpu")
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, size, size) float; in [0, 1] but for erased boxes."""
        pixels = to_uint8(self.augment(image)).float() / 255
        erased: Tensor = self.erase((pixels - self.mean) / self.std)
        return erased * self.std + self.mean


class SingleRandomResizedCrop:
    """MAE's linear-probing crop: one draw of area and aspect, clipped to the image, then a flip.

    Source: facebookresearch/mae, util/crop.py (torchvision's version retries instead of clipping).

    Args:
        size: Output height and width in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, size, size) uint8."""
        width, height = image.size
        area = width * height * float(torch.empty(1).uniform_(0.08, 1.0))
        aspect = math.exp(float(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3))))
        w, h = min(round(math.sqrt(area * aspect)), width), min(round(math.sqrt(area / aspect)), height)
        top = int(torch.randint(0, height - h + 1, ()))
        left = int(torch.randint(0, width - w + 1, ()))
        image = image.crop((left, top, left + w, top + h)).resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = to_uint8(image)
        return pixels.flip(-1) if torch.rand(()) < 0.5 else pixels
