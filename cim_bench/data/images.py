"""Labelled image sets with random access, read through timm's readers; nothing is skipped silently.

Roots: an ImageFolder (``train/`` with ``val/``, ``validation/`` or ``validate/``), tar files of one
(``train.tar``), ``wds/FOLDER`` (WebDataset shards), ``hfds/NAME`` (Hugging Face), ``torch/NAME``
(torchvision), ``photos`` (the demo's photographs), ``photos-a``, ``photos-r``, ``photos-sketch`` (shifted ones).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image
from torch.utils.data import Dataset

from cim_bench.common.errors import UNREADABLE
from cim_bench.data.fingerprint import fingerprint
from cim_bench.data.pixels import to_rgb
from cim_bench.data.readers import open_reader, sample_label, split_place
from cim_bench.spec import Data


class ImageError(ValueError):
    """An image that cannot be read; the message names it."""


class ImageSet(Dataset[Image.Image]):
    """One split of a `Data`.

    Args:
        data: Where and what.
        split: ``train``, ``val`` or any other folder name.

    Raises:
        ValueError: If the root lacks the split, naming every place that was looked at.
    """

    def __init__(self, data: Data, split: str) -> None:
        self.name, self.split = data.name, split
        self.place = split_place(data, split)
        self.reader = open_reader(data, split)
        names = getattr(self.reader, "class_to_idx", None) or getattr(self.reader, "class_name_to_idx", None) or {}
        self.classes = tuple(sorted(names, key=lambda name: names[name]))
        total = len(self.reader)
        bad = set(Path(data.bad_files).read_text(encoding="utf-8").splitlines()) if data.bad_files else set()
        self.indices = [i for i in range(total) if not bad or self.reader.filename(i) not in bad]
        self.own_labels: dict[int, int] | None = None
        if not self.indices:
            raise ValueError(f"{data.root}: split {split!r} holds no image")

    def __len__(self) -> int:
        return len(self.indices)

    def image_id(self, index: int) -> str:
        """The image's file name relative to the split (or the reader's own id)."""
        return str(self.reader.filename(self.indices[index]))

    def take(self, places: Sequence[int]) -> ImageSet:
        """The images at some places of this set, in the given order."""
        taken = copy.copy(self)
        taken.__dict__.pop("fingerprint", None)
        taken.indices = [self.indices[place] for place in places]
        return taken

    def with_labels(self, labels: Sequence[int]) -> ImageSet:
        """The same images with other labels, one for each."""
        other = self.take(range(len(self)))
        other.own_labels = dict(zip(self.indices, labels, strict=True))
        return other

    def labels(self) -> list[int] | None:
        """Labels in order, without decoding an image; ``None`` where the reader cannot tell."""
        if self.own_labels is not None:
            return [self.own_labels[i] for i in self.indices]
        if getattr(self.reader, "samples", None) is None:
            return None
        return [sample_label(self.reader, i) for i in self.indices]

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The decoded RGB image and its label.

        Raises:
            ImageError: Naming the image, if it cannot be read or decoded.
        """
        try:
            file, label, *_ = self.reader[self.indices[index]]
            image = file if isinstance(file, Image.Image) else Image.open(file)
            if self.own_labels is not None:
                label = self.own_labels[self.indices[index]]
            return to_rgb(image), int(label)
        except UNREADABLE as error:
            raise ImageError(
                f"cannot read image {self.image_id(index)} of {self.name}/{self.split}: {error}; "
                "replace the file, or list it in --data.bad-files"
            ) from error

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of ids, labels, sizes and contents of all images, in order, and of the class names.

        Of more than 100,000 images the contents of 1,024 count, and it begins with ``sampled:``
        (`cim_bench.data.fingerprint`).
        """
        return fingerprint(self.reader, self.indices, self.classes, self.own_labels, f"{self.name}/{self.split}")


class Placed(Protocol):
    """A set of images that lie somewhere."""

    @property
    def place(self) -> Path | None:
        """Its folder or file; ``None`` where a library keeps it."""
        ...

    @property
    def split(self) -> str:
        """Its name among the splits."""
        ...

    def __len__(self) -> int: ...
    @property
    def fingerprint(self) -> str:
        """Of its names and contents."""
        ...


def share_images(one: Placed, two: Placed) -> bool:
    """Whether two sets are the same images: one place, one inside the other, or copies of the same files."""
    if one.place is None or two.place is None:  # of a library, which tells its splits apart by their names
        return one.split == two.split
    places = one.place.resolve(), two.place.resolve()
    if places[0].is_relative_to(places[1]) or places[1].is_relative_to(places[0]):
        return True
    return len(one) == len(two) and one.fingerprint == two.fingerprint
