"""Labelled image sets with random access, read through timm's readers; nothing is skipped silently.

Roots: an ImageFolder (``train/`` with ``val/``, ``validation/`` or ``validate/``), tar files of one
(``train.tar``), ``wds/FOLDER`` (WebDataset shards), ``hfds/NAME`` (Hugging Face), ``torch/NAME``
(torchvision), ``photos`` (the demo's photographs), ``photos-a``, ``photos-r``, ``photos-sketch`` (shifted ones).
"""

from __future__ import annotations

import copy
import functools
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import create_dataset
from timm.data.readers import create_reader
from torch.utils.data import Dataset

from cim_bench.data.decode import UNREADABLE
from cim_bench.data.photo_shifts import SHIFTS, photo_shift
from cim_bench.data.photos import photos
from cim_bench.data.recognise import SPLIT_NAMES
from cim_bench.data.webdataset import WebDatasetReader
from cim_bench.recipe import Data
from cim_bench.record import stable_hash


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
        self.reader = open_reader(data, split)
        names = getattr(self.reader, "class_to_idx", None) or getattr(self.reader, "class_name_to_idx", None) or {}
        self.classes = tuple(sorted(names, key=lambda name: names[name]))
        total = len(self.reader)
        bad = set(Path(data.bad_files).read_text().splitlines()) if data.bad_files else set()
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
        return [_label(self.reader, i) for i in self.indices]

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
            return image.convert("RGB"), int(label)
        except UNREADABLE as error:
            raise ImageError(
                f"cannot read image {self.image_id(index)} of {self.name}/{self.split}: {error}; "
                "replace the file, or list it in --data.bad-files"
            ) from error

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of ids, labels and sizes of all images, in order, and of the class names."""
        rows = [_identity(self.reader, i) for i in self.indices]
        return stable_hash({"classes": self.classes, "images": rows})


def open_reader(data: Data, split: str) -> Any:
    """A timm reader (``reader[i]`` gives file or image and label, ``filename(i)`` its id) for one split."""
    kind, _, rest = data.root.partition("/")
    if kind == "wds":
        return WebDatasetReader(find_split(Path(rest), split))
    if kind == "hfds":
        return create_reader(data.root, root=data.cache, split=split)
    if kind == "torch":
        return TorchvisionReader(rest, root=data.cache or "data", split=split)
    root = photos() if data.root == "photos" else photo_shift(kind) if kind in SHIFTS else Path(data.root)
    place = root if split == "." else find_split(root, split)
    if not place.exists():
        raise ValueError(f"no folder {place} for the set {data.name}; set its root")
    # timm would keep a tar open, and forked loader workers then share one position in it
    options = {"cache_tarfiles": False} if place.suffix == ".tar" else {}
    try:
        return create_reader("", root=str(place), **options)
    except (RuntimeError, ValueError, tarfile.TarError) as error:
        raise ValueError(f"{place} holds no image: {error}") from error


def find_split(root: Path, split: str) -> Path:
    """The folder or tar file of a split below `root`.

    Raises:
        ValueError: Naming every place that was looked at.
    """
    names = SPLIT_NAMES.get(split, (split,))
    places = [root / f"{name}{suffix}" for name in names for suffix in ("", ".tar")]
    for place in places:
        if place.exists():
            return place
    state = "has none of them" if root.exists() else "does not exist"
    raise ValueError(
        f"no split {split!r}: looked for {', '.join(p.name for p in places)} in {root}, which {state}; "
        "set --data.root, or --data.train-split and --data.val-split"
    )


class TorchvisionReader:
    """A torchvision set (``torch/cifar10``) behind the interface of timm's readers; never downloads."""

    def __init__(self, name: str, *, root: str, split: str) -> None:
        try:
            self.dataset = create_dataset(f"torch/{name}", root=root, split=split, download=False)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"torchvision set {name!r} is not below {root}: {error}") from error
        self.class_to_idx = getattr(self.dataset, "class_to_idx", {})
        self.name = f"{name}/{split}"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, label = self.dataset[index]
        return image, label

    def filename(self, index: int) -> str:
        """Torchvision sets have no file names; the position stands in."""
        return f"{self.name}/{index}"


def _identity(reader: Any, index: int) -> list[Any]:
    """Id, size and label of an image, without decoding it where the reader allows."""
    name = reader.filename(index)
    samples = getattr(reader, "samples", None)
    if samples is None:
        return [name]
    source = samples[index][0]
    size = source.size if hasattr(source, "size") else Path(source).stat().st_size
    return [name, int(size), _label(reader, index)]


def _label(reader: Any, index: int) -> int:
    """Label of an image of a reader that lists its samples: in a list of its own (tar) or beside the path."""
    targets = getattr(reader, "targets", None)
    return int(reader.samples[index][1] if targets is None else targets[index])
