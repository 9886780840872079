"""Training transforms of segmentation: image and mask through one geometry, and mmseg's photometric distortion.

Sources: mmsegmentation 0.x, ``mmseg/datasets/pipelines/transforms.py`` (``Resize``, ``RandomCrop``, ``RandomFlip``,
``PhotoMetricDistortion``, ``Pad``) and ``configs/_base_/datasets/ade20k.py`` (its settings); mmcv 1.x,
``mmcv/image/geometric.py`` (``rescale_size``). Everything random is drawn from torch's global generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from cim_bench.data.segmentation import IGNORED
from cim_bench.data.transforms import to_uint8
from cim_bench.spec import IMAGENET_MEAN

TRIES = 10  # places of a crop that are looked at; what is drawn after them is taken as it is (RandomCrop)
BRIGHTNESS = 32.0  # most that is added, of 255 (PhotoMetricDistortion, as the next two)
CONTRAST = SATURATION = (0.5, 1.5)  # factors
HUE = 18  # of the 180 steps of OpenCV's hue: integers from -18 to 17


@dataclass(frozen=True)
class SegmentationTrain:
    """Resize by a random ratio, crop where no class fills the view, flip, distort colours, pad to a square.

    Attributes:
        crop: Height and width of what comes out, in pixels.
        bound: Longest and shortest side that a resized image fits in, before the ratio.
        ratios: Range of the ratio.
        largest_share: A crop is wanted in which no class has this share of the labelled pixels; 1 takes any.
        flip: Probability.
        distort: Whether colours are distorted.
        mean: The model's, per channel of an image in [0, 1]: the colour of what is padded. mmseg normalises first and
            pads with 0, which is the same to the rounding of 8 bits.
        antialias: Of the resize of images; OpenCV has none.
    """

    crop: int = 512
    bound: tuple[int, int] = (2048, 512)
    ratios: tuple[float, float] = (0.5, 2.0)
    largest_share: float = 0.75
    flip: float = 0.5
    distort: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    antialias: bool = False

    def __call__(self, image: Image.Image, mask: Tensor) -> dict[str, Tensor]:
        """Training sample of an image.

        Args:
            image: RGB.
            mask: (H, W) uint8 of its size: classes from 0, 255 ignored.

        Returns:
            ``image``: (3, crop, crop) uint8; ``mask``: (crop, crop) uint8, 255 where padded.
        """
        pixels, labels = tv_tensors.Image(to_uint8(image)), tv_tensors.Mask(mask[None])
        ratio = _uniform(*self.ratios)
        bound = int(self.bound[0] * ratio), int(self.bound[1] * ratio)
        size = bounded_size(mask.shape[0], mask.shape[1], bound)
        pixels = F.resize(pixels, size, F.InterpolationMode.BILINEAR, antialias=self.antialias)
        labels = F.resize(labels, size)  # a Mask by nearest
        top, left = draw_crop(labels[0], self.crop, self.largest_share)
        height, width = min(self.crop, size[0]), min(self.crop, size[1])
        pixels, labels = (F.crop(one, top, left, height, width) for one in (pixels, labels))
        if _happens(self.flip):
            pixels, labels = F.horizontal_flip(pixels), F.horizontal_flip(labels)
        if self.distort:
            pixels = distort(pixels)
        image_, mask_ = pad(pixels, labels[0], self.crop, self.mean)
        return {"image": image_, "mask": mask_}


def bounded_size(height: int, width: int, bound: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the largest image of one shape whose sides fit in `bound` (longest, shortest).

    Examples:
        >>> bounded_size(512, 683, (2048, 512)), bounded_size(300, 3000, (2048, 512))
        ((512, 683), (205, 2048))
    """
    scale = min(max(bound) / max(height, width), min(bound) / min(height, width))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def resize_to_bound(image: Tensor, bound: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """An image as tests of segmentation see it: as large as fits in `bound`, its shape kept, bilinear.

    Args:
        image: (..., 3, H, W) uint8, or float.
        bound: Longest and shortest side, in pixels.
        antialias: OpenCV, and so mmseg, has none.
    """
    size = list(bounded_size(image.shape[-2], image.shape[-1], bound))
    resized: Tensor = F.resize(image, size, F.InterpolationMode.BILINEAR, antialias=antialias)
    return resized


def draw_crop(mask: Tensor, crop: int, largest_share: float) -> tuple[int, int]:
    """Top and left of a random crop, drawn again while one class fills it.

    A place is taken if the crop has more than one class, and the largest has less than `largest_share` of the pixels
    that are not ignored. After ten places that are not, an eleventh is taken whatever it holds.

    Args:
        mask: (H, W) uint8.
        crop: Side in pixels; a side of the mask that is shorter is taken whole.
        largest_share: 1 takes the first place.
    """
    for _ in range(TRIES if largest_share < 1 else 0):
        top, left = _place(mask, crop)
        view = mask[top : top + crop, left : left + crop]
        counts = torch.bincount(view.flatten(), minlength=IGNORED + 1)[:IGNORED]
        if int((counts > 0).sum()) > 1 and int(counts.max()) / int(counts.sum()) < largest_share:
            return top, left
    return _place(mask, crop)


def pad(image: Tensor, mask: Tensor, size: int, mean: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Fill an image at its bottom and right with the mean colour, and its mask with 255.

    Args:
        image: (3, H, W) uint8, no side longer than `size`.
        mask: (H, W) uint8.
        size: Height and width after it.
        mean: Per channel, in [0, 1].
    """
    height, width = mask.shape
    filled = torch.tensor([round(255 * value) for value in mean], dtype=torch.uint8).view(3, 1, 1).repeat(1, size, size)
    filled[:, :height, :width] = image
    labels = torch.full((size, size), IGNORED, dtype=torch.uint8)
    labels[:height, :width] = mask
    return filled, labels


def distort(image: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, each changed with probability 1/2; contrast before or after colours.

    Args:
        image: (3, H, W) uint8, as what it returns.
    """
    if _happens(0.5):
        image = scale_pixels(image, 1.0, _uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_first = _happens(0.5)
    if contrast_first and _happens(0.5):
        image = scale_pixels(image, _uniform(*CONTRAST), 0.0)
    if _happens(0.5):
        image = scale_saturation(image, _uniform(*SATURATION))
    if _happens(0.5):
        image = shift_hue(image, int(torch.randint(-HUE, HUE, ())))
    if not contrast_first and _happens(0.5):
        image = scale_pixels(image, _uniform(*CONTRAST), 0.0)
    return image


def scale_pixels(values: Tensor, factor: float, offset: float) -> Tensor:
    """``values * factor + offset``, clipped to [0, 255] and cut to uint8."""
    return (values.float() * factor + offset).clamp(0, 255).to(torch.uint8)


def scale_saturation(image: Tensor, factor: float) -> Tensor:
    """(3, H, W) uint8 with the saturation of HSV multiplied."""
    hue, saturation, value = rgb_to_hsv(image)
    return hsv_to_rgb(torch.stack([hue, scale_pixels(saturation, factor, 0.0), value]))


def shift_hue(image: Tensor, steps: int) -> Tensor:
    """(3, H, W) uint8 with the hue moved on by `steps` of 2 degrees."""
    hue, saturation, value = rgb_to_hsv(image)
    return hsv_to_rgb(torch.stack([((hue.int() + steps) % 180).to(torch.uint8), saturation, value]))


def rgb_to_hsv(image: Tensor) -> Tensor:
    """HSV in OpenCV's 8 bits: hue in [0, 180) steps of 2 degrees, saturation and value in [0, 255].

    Args:
        image: (3, H, W) uint8.
    """
    red, green, blue = image.float()
    value, least = image.amax(0).float(), image.amin(0).float()
    spread = value - least
    saturation = 255 * spread / value.clamp(min=1)
    sixths = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    ) / spread.clamp(min=1)
    hue = (30 * sixths + 0.5).floor()
    return torch.stack([torch.where(hue < 0, hue + 180, hue), (saturation + 0.5).floor(), value]).to(torch.uint8)


def hsv_to_rgb(image: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsv`, to the rounding of 8 bits: fractions are cut, as OpenCV's vectorised code does.

    Source: A. R. Smith, "Color Gamut Transform Pairs", 1978, in the form without branches.

    Args:
        image: (3, H, W) uint8: hue in [0, 180), saturation, value.
    """
    hue, saturation, value = image.float()
    offsets = torch.tensor([5.0, 3.0, 1.0], device=image.device).view(3, 1, 1)
    sixths = (offsets + hue / 30) % 6
    share = torch.minimum(sixths, 4 - sixths).clamp(0, 1)
    rgb: Tensor = value - value * saturation / 255 * share
    return rgb.to(torch.uint8)


def _place(mask: Tensor, crop: int) -> tuple[int, int]:
    top, left = (int(torch.randint(0, max(side - crop, 0) + 1, ())) for side in mask.shape)
    return top, left


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _happens(probability: float) -> bool:
    return float(torch.rand(())) < probability
