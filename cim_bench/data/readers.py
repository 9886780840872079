"""Open a timm reader for each kind of root: image folder, tar file, WebDataset, Hugging Face, torchvision."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import create_dataset
from timm.data.readers import create_reader, set_img_extensions

from cim_bench.data.folders import ImageFolderReader, check_names
from cim_bench.data.photos.crops import CROPS, photos
from cim_bench.data.photos.shifts import PHOTO_SHIFTS, photo_shift
from cim_bench.data.sets import SPLIT_NAMES
from cim_bench.data.suffixes import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from cim_bench.data.webdataset import WebDatasetReader
from cim_bench.spec import Data


def open_reader(data: Data, split: str) -> Any:
    """A timm reader (``reader[i]`` gives file or image and label, ``filename(i)`` its id) for one split."""
    kind, _, rest = data.root.partition("/")
    if kind == "wds":
        return WebDatasetReader(find_split(Path(rest), split))
    if kind == "hfds":
        return create_reader(data.root, root=data.cache, split=split)
    if kind == "torch":
        return TorchvisionReader(rest, root=data.cache or "data", split=split)
    place = split_place(data, split)
    if place is None or not place.exists():
        raise ValueError(f"no folder {place} for the set {data.name}; set its root")
    return ImageFolderReader(place) if place.is_dir() else _tar_reader(place)


def split_place(data: Data, split: str) -> Path | None:
    """The folder or tar file of a split; ``None`` for sets that a library keeps where it likes.

    Raises:
        ValueError: Naming every place that was looked at, if there is none.
    """
    kind, _, rest = data.root.partition("/")
    if kind in ("hfds", "torch"):
        return None
    if kind == "wds":
        return find_split(Path(rest), split)
    root = photos(name=kind) if kind in CROPS else photo_shift(kind) if kind in PHOTO_SHIFTS else Path(data.root)
    return root if split == "." else find_split(root, split)


def _tar_reader(place: Path) -> Any:
    """timm's reader of the images in a tar file."""
    # timm takes names for images by a list of its own process: with those that nobody reads, to find them here
    set_img_extensions((*IMAGE_SUFFIXES, *UNREAD_SUFFIXES))
    try:
        # timm would keep a tar open, and forked loader workers then share one position in it
        reader = create_reader("", root=str(place), cache_tarfiles=False)
    except (RuntimeError, ValueError, tarfile.TarError) as error:
        raise ValueError(f"{place} holds no image: {error}") from error
    check_names((reader.filename(index) for index in range(len(reader))), str(place))
    return reader


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


def sample_label(reader: Any, index: int) -> int:
    """Label of an image of a reader that lists its samples: in a list of its own (tar) or beside the path."""
    targets = getattr(reader, "targets", None)
    return int(reader.samples[index][1] if targets is None else targets[index])
