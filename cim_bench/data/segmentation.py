"""Segmentation sets in ADE20K's layout: one label a pixel, 0 unlabelled; nothing is skipped silently.

A root holds ``images/{training,validation}``, ``annotations/{training,validation}`` and its class list:
``classes.txt`` (one name a line, in label order from 1) or ADEChallengeData2016's ``objectInfo150.txt`` (``.csv``).
The root ``photos-seg`` is the demo's own set.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cim_bench.common.errors import UNREADABLE
from cim_bench.data.check.layouts import mark
from cim_bench.data.class_list import CLASS_LISTS, IGNORED_LABEL, find_class_list, read_class_list
from cim_bench.data.fingerprint import fingerprint, join_fingerprints
from cim_bench.data.folders import image_files
from cim_bench.data.images import ImageError
from cim_bench.data.photos.mosaics import photo_mosaics
from cim_bench.data.pixels import to_rgb
from cim_bench.data.sets import ADE20K_LABELS, FULL_ADE20K, SPLIT_NAMES
from cim_bench.spec import Data

IGNORED = IGNORED_LABEL  # of a mask: pixels that are neither learned from nor scored
_PACKED_MODES = ("1", "L", "P", "I;16", "I;16B", "I")  # of Pillow, that hold one integer a pixel


class SegmentationSet(Dataset[tuple[Image.Image, Tensor]]):
    """One split of a folder in ADE20K's layout, in the order of file names.

    Args:
        data: `Data.root` is the folder; `Data.class_list` names the file of class names where the root holds none.
        split: ``train`` or ``training``, ``val`` or ``validation``, or any other folder name.

    Attributes:
        name: What tables call the set.
        split: As given.
        place: The split's folder of images.
        classes: Names in label order.

    Raises:
        ValueError: If it is the full ADE20K; naming a folder or class list that is missing or wrong, an image without
            annotation, or an annotation without image.
    """

    def __init__(self, data: Data, split: str) -> None:
        self.name, self.split = data.name, split
        self.root = _root(data)
        self.place = _split_folder(self.root, "images", split)
        images = _by_stem(self.place)
        annotations = _by_stem(_split_folder(self.root, "annotations", split))
        _check_partners(self.name, self.place, images, annotations)
        ade = any(Path(stem).name.startswith("ADE_") for stem in images)
        self.classes = read_class_list(_class_list(data, self.root), ADE20K_LABELS if ade else None)
        bad = set(Path(data.bad_files).read_text(encoding="utf-8").splitlines()) if data.bad_files else set()
        pairs = [(file, annotations[stem]) for stem, file in sorted(images.items())]
        self.files = [pair for pair in pairs if pair[0].relative_to(self.place).as_posix() not in bad]
        if not self.files:
            raise ValueError(f"{data.root}: split {split!r} holds no image")

    def __len__(self) -> int:
        return len(self.files)

    def image_id(self, index: int) -> str:
        """The image's file name relative to the split."""
        return self.files[index][0].relative_to(self.place).as_posix()

    def take(self, places: Sequence[int]) -> SegmentationSet:
        """The images at some places of this set, in the given order."""
        taken = copy.copy(self)
        taken.__dict__.pop("fingerprint", None)
        taken.files = [self.files[place] for place in places]
        return taken

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        """The decoded RGB image, and its mask.

        Returns:
            The image, and (H, W) uint8: the class from 0, `IGNORED` where the file holds 0 or 255.

        Raises:
            ImageError: Naming the file, if it cannot be decoded, or if the annotation is not one label a pixel, has
                another size than its image, or holds a label that the class list lacks.
        """
        file, annotation = self.files[index]
        image, labels = self._decode(file, to_rgb), self._decode(annotation, lambda stored: stored)
        found = f"{annotation} of {self.name}"
        if labels.mode not in _PACKED_MODES:
            raise ImageError(
                f"{found} has colours (mode {labels.mode}), not one label a pixel; store the number of the class, "
                "0 where there is none"
            )
        if labels.size != image.size:
            sizes = ["x".join(map(str, one.size)) for one in (labels, image)]
            raise ImageError(f"{found} is {sizes[0]} pixels, its image {sizes[1]}; an annotation must have its size")
        return image, to_mask(np.asarray(labels), len(self.classes), found)

    def _decode(self, file: Path, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
        try:
            with Image.open(file) as image:
                image.load()
                return convert(image)
        except UNREADABLE as error:
            raise ImageError(
                f"cannot read {file} of {self.name}/{self.split}: {error}; replace the file, or list its image in the "
                "set's bad_files"
            ) from error

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of names and contents of all images and annotations, in order, and of the class names."""
        title = f"{self.name}/{self.split}"
        sides = []
        for side in range(2):
            files = [str(pair[side]) for pair in self.files]
            sides.append(fingerprint(_Listed(self.root, files), range(len(files)), self.classes, None, title))
        return join_fingerprints(sides)


class _Listed:
    """Files in the manner of timm's readers, for `fingerprint`."""

    def __init__(self, root: Path, files: Iterable[str]) -> None:
        self.root, self.samples = str(root), [(file, 0) for file in files]


def to_mask(labels: np.ndarray, classes: int, name: str) -> Tensor:
    """Labels of a file as classes from 0.

    Args:
        labels: (H, W) integers: 0 or 255 unlabelled, else a class from 1.
        classes: How many there are.
        name: Of the file, for the message.

    Returns:
        (H, W) uint8; `IGNORED` where unlabelled.

    Raises:
        ImageError: If there is a label beyond the classes.

    Examples:
        >>> to_mask(np.array([[0, 1, 2, 255]]), 2, "a.png").tolist()
        [[255, 0, 1, 255]]
    """
    stays = labels == IGNORED
    outside = (labels < 0) | ((labels > classes) & ~stays)
    if outside.any():
        raise ImageError(
            f"{name} holds label {labels[outside][0]}, and the class list names {classes} classes (1 to {classes}; 0 "
            "and 255 are unlabelled); correct the annotation or the class list"
        )
    mask = labels.astype(np.uint8) - np.uint8(1)  # 0 becomes 255
    mask[stays] = IGNORED
    return torch.from_numpy(mask)


def _root(data: Data) -> Path:
    """The folder of a set, its links resolved."""
    if data.root == "photos-seg":
        return photo_mosaics()
    root = Path(data.root)
    if not root.is_dir():
        raise ValueError(f"no folder {data.root} for the set {data.name}; set its root")
    if mark(root.resolve()) == "full ADE20K":
        raise ValueError(f"{data.root}: {FULL_ADE20K}")
    return root


def _split_folder(root: Path, top: str, split: str) -> Path:
    names = next((names for names in SPLIT_NAMES.values() if split in names), ())
    places = [root / top / name for name in dict.fromkeys((split, *names))]
    for place in places:
        if place.is_dir():
            return place
    looked = ", ".join(f"{top}/{place.name}" for place in places)
    raise ValueError(
        f"no split {split!r} in {root}: looked for {looked}; a segmentation set has images/ and annotations/, with "
        "training/ and validation/ in each (set its root, or its train_split and val_split)"
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    """Image files below a folder by their path in it without suffix."""
    found: dict[str, Path] = {}
    for path, _ in sorted(image_files(str(folder))):
        stem = Path(path).relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise ValueError(f"{found[stem]} and {path} differ in their suffix alone; keep one of them")
        found[stem] = Path(path)
    return found


def _check_partners(name: str, place: Path, images: dict[str, Path], annotations: dict[str, Path]) -> None:
    for what, one, lacks, other in (
        ("image", images, "annotation", annotations),
        ("annotation", annotations, "image", images),
    ):
        alone = sorted(one.keys() - other.keys())
        if alone:
            raise ValueError(
                f"{name}/{place.name}: {len(alone):,} of {len(one):,} {what}s have no {lacks} of their name, e.g. "
                f"{one[alone[0]]}; unpack the set again, or move them away"
            )


def _class_list(data: Data, root: Path) -> Path:
    if data.class_list is not None:
        return Path(data.class_list)
    found = find_class_list(root)
    if found is None:
        raise ValueError(
            f"{data.root} holds no class list ({', '.join(CLASS_LISTS)}); put one there, or name a file of class "
            "names, one a line in label order, as class_list"
        )
    return found
