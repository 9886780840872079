"""Recognise the layout of a data set on disk, and list its files; imports no torch."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cim_bench.common.progress import Meter
from cim_bench.data.classes import imagenet_a_wnids, imagenet_r_wnids, imagenet_wnids
from cim_bench.data.sets import CORRUPTIONS, EXTRA_CORRUPTIONS, SPLIT_NAMES
from cim_bench.data.suffixes import IMAGE_SUFFIXES, UNREAD_SUFFIXES

ROLES = {name: role for role, names in SPLIT_NAMES.items() for name in names}
SEVERITY_FOLDERS = ("1", "2", "3", "4", "5")
FLAT_VAL = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")


@dataclass(frozen=True)
class Split:
    """The files of one split, as `cim_bench.data.folders` finds them: at any depth, by suffix.

    Attributes:
        name: The split's folder relative to the root, ``.`` for the root itself.
        path: The folder.
        images: File names relative to `path`, with ``/``, sorted: the ids of ``ImageSet``.
        empty: Folders that hold neither an image nor a folder.
        unread: How many files of each suffix in `UNREAD_SUFFIXES`, and pipes named as images, there are.
        links: Links that lead out of the root, which the check does not follow.
        circles: Links in a circle, or to a folder again: no run would read them.
    """

    name: str
    path: Path
    images: tuple[str, ...]
    empty: tuple[str, ...]
    unread: Mapping[str, int]
    links: tuple[str, ...]
    circles: tuple[str, ...] = ()

    @functools.cached_property
    def classes(self) -> dict[str, int]:
        """Images per label; timm's label is the innermost folder, and empty for a file beside the class folders."""
        return dict(Counter(name.rpartition("/")[0].rpartition("/")[2] for name in self.images))


@dataclass(frozen=True)
class Layout:
    """What `recognise_layout` found.

    Attributes:
        kind: ``ImageNet-1k`` and so on, ``image folder``, ``segmentation folder`` or ``unknown``.
        root: The folder, its links resolved.
        splits: Image splits.
        annotations: Splits of annotations (segmentation only).
        skipped: Splits that cannot be listed: links out of the root, tar files.
        inner: Folders below an unknown root that look like data sets.
    """

    kind: str
    root: Path
    splits: tuple[Split, ...] = ()
    annotations: tuple[Split, ...] = ()
    skipped: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()


def printable(text: str) -> str:
    """A name or message as a terminal can show it: escaped where it holds control characters or broken bytes."""
    return text if text.isprintable() else ascii(text)


def recognise_layout(root: Path) -> Layout:
    """Recognise the data set in a folder and list its files. No link or name leads out of the folder.

    Raises:
        OSError: If a folder cannot be listed.
    """
    root = Path(os.path.realpath(root))
    kind = mark(root)
    skipped = tuple(sorted(_outward(root)))
    if kind == "full ADE20K":
        return Layout(kind, root, skipped=skipped)
    if kind == "segmentation folder":
        images, annotations = (_scan_below(root, top) for top in ("images", "annotations"))
        ade = any(name.startswith("ADE_") for split in images for name in split.images[:1])
        return Layout("ADE20K" if ade else kind, root, images, annotations, skipped)
    if kind == "ImageNet-C":
        return Layout(kind, root, tuple(scan(root, name) for name in _severities(root)), skipped=skipped)
    if kind is None:
        inner = tuple(name for name in _folders(root) if mark(Path(os.path.realpath(root / name))))
        if inner:  # a folder of data sets: listing it all could take an hour
            return Layout("unknown", root, skipped=skipped, inner=inner)
    names = [name for name in (*ROLES, "test") if name in _folders(root)]
    splits = tuple(scan(root, name) for name in names)
    if not names and not skipped:
        splits = (scan(root, "."),)
    return Layout(_kind(root, splits, skipped), root, splits, skipped=skipped)


def scan(root: Path, name: str) -> Split:
    """List the files of one split of a root whose own links are resolved.

    Raises:
        OSError: If a folder cannot be listed.
    """
    base = root / name
    images: list[str] = []
    empty: list[str] = []
    links: list[str] = []
    circles: list[str] = []
    unread: Counter[str] = Counter()
    followed: set[str] = set()
    stack = [""]
    with Meter(f"list {base.name}", 1 + sum(entry.is_dir() for entry in _entries(base))) as meter:
        while stack:
            folder = stack.pop()
            before = len(images) + len(stack) + len(links) + len(circles)
            for entry in _entries(base / folder):
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(root):
                    links.append(relative)
                elif entry.is_symlink() and entry.is_dir() and _leads_back(entry, followed):
                    circles.append(relative)
                elif entry.is_dir():
                    stack.append(relative)
                elif _is_image(entry):
                    # interned, for the 75 folders of ImageNet-C hold the same 50,000 names
                    images.append(sys.intern(relative))
                else:
                    unread[Path(entry.name).suffix.lower()] += 1
            if folder and len(images) + len(stack) + len(links) + len(circles) == before:
                empty.append(folder)
            meter.step(int("/" not in folder))
    strange = {suffix: count for suffix, count in unread.items() if suffix in UNREAD_SUFFIXES.union(IMAGE_SUFFIXES)}
    return Split(
        name, base, tuple(sorted(images)), tuple(sorted(empty)), strange, tuple(sorted(links)), tuple(sorted(circles))
    )


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether a file is an image by its name. A broken link is one, which cannot be read; a pipe is none."""
    if Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
        return False
    return entry.is_file() or not Path(entry.path).exists()


def _scan_below(root: Path, top: str) -> tuple[Split, ...]:
    return tuple(scan(root, f"{top}/{name}") for name in _folders(root, top)) if top in _folders(root) else ()


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _leads_back(entry: os.DirEntry[str], followed: set[str]) -> bool:
    """Whether a link to a folder closes a circle, or leads to a folder that another one led to."""
    target = os.path.realpath(entry.path)
    if target in followed or Path(os.path.realpath(Path(entry.path).parent)).is_relative_to(target):
        return True
    followed.add(target)
    return False


def _folders(root: Path, below: str = ".") -> list[str]:
    """Names of the folders in a folder, without links that lead out of the root."""
    found = (entry for entry in _entries(root / below) if entry.is_dir())
    return sorted(e.name for e in found if Path(os.path.realpath(e.path)).is_relative_to(root))


def _outward(root: Path) -> Iterator[str]:
    """Folders that are links out of the root, and splits that are tar files."""
    for entry in _entries(root):
        path = Path(entry.name)
        away = entry.is_dir() and not Path(os.path.realpath(entry.path)).is_relative_to(root)
        if away or (path.suffix == ".tar" and path.stem in ROLES):
            yield entry.name


def mark(root: Path) -> str | None:
    """What the names of its folders alone tell about a root: a kind, ``splits``, or nothing.

    Raises:
        OSError: If a folder cannot be listed.
    """
    folders = set(_folders(root))
    inside = set(_folders(root, "images")) if "images" in folders else set()
    files = {entry.name for entry in _entries(root)}
    if {"index_ade20k.pkl", "index_ade20k.mat"} & files or "ADE" in inside:
        return "full ADE20K"
    if "annotations" in folders and inside:
        return "segmentation folder"
    if "training" in inside:  # the full set sorts its images into scenes
        return "full ADE20K" if _folders(root, "images/training") else "segmentation folder"
    if next(_severities(root), None):
        return "ImageNet-C"
    if folders & {*ROLES, "test"} or any(f"{name}.tar" in files for name in ROLES):
        return "splits"
    return None


def _severities(root: Path) -> Iterator[str]:
    """``noise/gaussian_noise/1`` (as in the tars) or ``gaussian_noise/1`` of every severity folder there is."""
    folders = set(_folders(root))
    for group, names in {**CORRUPTIONS, **EXTRA_CORRUPTIONS}.items():
        grouped = set(_folders(root, group)) if group in folders else set()
        for name in names:
            place = f"{group}/{name}" if name in grouped else name
            if name in grouped or name in folders:
                yield from (f"{place}/{severity}" for severity in _folders(root, place) if severity in SEVERITY_FOLDERS)


def _kind(root: Path, splits: tuple[Split, ...], skipped: tuple[str, ...]) -> str:
    """The kind of a classification set, by its classes, then by its files' names."""
    classes = {label for split in splits for label in split.classes} - {""}
    first = [split.images[0].rpartition("/")[2] for split in splits if split.images]
    if not first:
        return "image folder" if skipped else "unknown"
    numbers = classes & {str(number) for number in range(1000)}
    if numbers == classes and (len(classes) >= 500 or "imagenetv2" in root.name.lower()):
        return "ImageNet-V2"
    if not any(ROLES.get(split.name) == "train" for split in splits) and len(classes) <= 250:
        # the two share 86 of their 200 classes, so no set reaches 150 of both
        for kind, wnids in (("ImageNet-A", imagenet_a_wnids()), ("ImageNet-R", imagenet_r_wnids())):
            if len(classes & set(wnids)) >= 150:
                return kind
    if len(classes & set(imagenet_wnids())) >= 500:
        return "ImageNet-Sketch" if first[0].startswith("sketch_") else "ImageNet-1k"
    flat = any(FLAT_VAL.fullmatch(name) for name in first)
    return "ImageNet-1k" if flat and classes <= set(imagenet_wnids()) else "image folder"
