"""The two splits that a protocol of segmentation reads, and the form in which protocols of features take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
import torch
from annotated_types import Interval
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from cim_bench.data.images import share_images
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.data.transforms import to_uint8
from cim_bench.evals.segmentation.transforms import bounded_size, pad, resize_to_bound
from cim_bench.spec import Data

SizeRatio = Annotated[float, Interval(gt=0, le=8)]  # of a training image to the size that tests give it
ADE20K = Data(name="ade20k", root="data/ADEChallengeData2016")


def open_splits(data: Data) -> tuple[SegmentationSet, SegmentationSet]:
    """The split that may be learned from, and the one that is scored.

    Raises:
        ValueError: If one cannot be opened, or if they are the same images.
    """
    train, val = (SegmentationSet(data, split) for split in (data.train_split, data.val_split))
    if share_images(train, val):
        raise ValueError(
            f"{data.name}: {data.train_split} and {data.val_split} are the same images, or one lies in the other, and "
            "a score on images that were learned from means nothing; set the set's train_split and val_split, or root"
        )
    return train, val


class Geometry(Protocol):
    """What features are made of: the same geometry for an image and its mask."""

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, S, S) uint8 from an RGB image."""
        ...

    def mask(self, mask: Tensor) -> Tensor:
        """(S, S) uint8 from an image's (H, W)."""
        ...


@dataclass(frozen=True)
class Squash:
    """To a square, whatever the image's shape: bicubic with antialias; the label of a pixel is that of the nearest.

    Attributes:
        size: Height and width in pixels.
    """

    size: int

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, size, size) uint8."""
        return to_uint8(image.resize((self.size, self.size), Image.Resampling.BICUBIC))

    def mask(self, mask: Tensor) -> Tensor:
        """(size, size) uint8 from (H, W)."""
        squashed = Image.fromarray(mask.numpy()).resize((self.size, self.size), Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(squashed))


@dataclass(frozen=True)
class CentreWindow:
    """The middle of an image that was resized as in tests, padded at bottom and right where it is too small.

    Attributes:
        crop: Height and width in pixels.
        bound: Longest and shortest side that bound the resized image.
        mean: Per channel of an image in [0, 1]: the colour of padding.
        antialias: Of the resize of images.
    """

    crop: int
    bound: tuple[int, int]
    mean: tuple[float, float, float]
    antialias: bool

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, crop, crop) uint8."""
        pixels = self._middle(resize_to_bound(to_uint8(image), self.bound, antialias=self.antialias))
        return pad(pixels, torch.zeros(pixels.shape[1:], dtype=torch.uint8), self.crop, self.mean)[0]

    def mask(self, mask: Tensor) -> Tensor:
        """(crop, crop) uint8 from (H, W), 255 where padded."""
        size = list(bounded_size(mask.shape[0], mask.shape[1], self.bound))
        labels = self._middle(F.resize(tv_tensors.Mask(mask[None]), size).as_subclass(Tensor))
        return pad(labels.expand(3, -1, -1), labels[0], self.crop, self.mean)[1]

    def _middle(self, values: Tensor) -> Tensor:
        top, left = (max(side - self.crop, 0) // 2 for side in values.shape[1:])
        return values[:, top : top + self.crop, left : left + self.crop]


class PreparedMasks:
    """A segmentation set whose masks have one size, as an image's features have.

    Args:
        images: The set.
        prepare: Its `mask` is applied.
        added: Names of classes that answers may have beside the set's own.
    """

    def __init__(self, images: SegmentationSet, prepare: Geometry, added: tuple[str, ...] = ()) -> None:
        self.images, self.prepare, self.added = images, prepare, added
        self.name, self.split, self.classes = images.name, images.split, (*images.classes, *added)

    def __len__(self) -> int:
        return len(self.images)

    def image_id(self, index: int) -> str:
        """The image's name in the set."""
        return self.images.image_id(index)

    def take(self, places: Sequence[int]) -> PreparedMasks:
        """The images at some places of this set, in the given order."""
        return PreparedMasks(self.images.take(places), self.prepare, self.added)

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        """The RGB image as it is, and its prepared mask, (S, S) uint8: a class from 0, 255 where unlabelled."""
        image, mask = self.images.read(index)
        return image, self.prepare.mask(mask)
