"""The two splits that a protocol of segmentation reads, and the form in which patch protocols take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cim_bench.data.images import share_images
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.data.transforms import to_uint8
from cim_bench.spec import Data

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


@dataclass(frozen=True)
class Squash:
    """To a square, whatever the image's shape; bicubic, with antialias.

    Attributes:
        size: Height and width in pixels.
    """

    size: int

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, size, size) uint8."""
        return to_uint8(image.resize((self.size, self.size), Image.Resampling.BICUBIC))


class SquashedMasks:
    """A segmentation set whose masks are squashed to a square, the label of a pixel being that of the nearest.

    Args:
        images: The set.
        size: Height and width in pixels.
        added: Names of classes that answers may have beside the set's own.
    """

    def __init__(self, images: SegmentationSet, size: int, added: tuple[str, ...] = ()) -> None:
        self.images, self.size, self.added = images, size, added
        self.name, self.split, self.classes = images.name, images.split, (*images.classes, *added)

    def __len__(self) -> int:
        return len(self.images)

    def image_id(self, index: int) -> str:
        """The image's name in the set."""
        return self.images.image_id(index)

    def take(self, places: Sequence[int]) -> SquashedMasks:
        """The images at some places of this set, in the given order."""
        return SquashedMasks(self.images.take(places), self.size, self.added)

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        """The RGB image as it is, and its mask, (size, size) uint8: a class from 0, 255 where unlabelled."""
        image, mask = self.images.read(index)
        squashed = Image.fromarray(mask.numpy()).resize((self.size, self.size), Image.Resampling.NEAREST)
        return image, torch.from_numpy(np.array(squashed))
