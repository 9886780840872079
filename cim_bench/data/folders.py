"""Folders of images, listed so that nothing is left out or counted twice unsaid."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cim_bench.data.suffixes import IMAGE_SUFFIXES, UNREAD_SUFFIXES

_ENDINGS = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
_NUMBERS = re.compile(r"(\d+)")


class ImageFolderReader:
    """The images below a folder at any depth, labelled by the folders they lie in; in the manner of timm's readers.

    Order and labels are those of timm's ``ReaderImageFolder``: class names and paths are sorted with their numbers as
    numbers and without regard to case, and a label is the innermost folder. Links to folders are followed.

    Raises:
        ValueError: If there is no image; if images lie beside class folders; or naming a file that would be left out,
            a folder that would be read twice, a name that is not UTF-8, or a pipe or device named as an image.
        OSError: Naming a folder that cannot be listed.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        found = list(image_files(self.root))
        if not found:
            raise ValueError(f"{root} holds no image: no file below it is named as one (.png, .jpg, .webp, ...)")
        labels = {label for _, label in found}
        if "" in labels and len(labels) > 1:
            beside = [path for path, label in found if not label]
            raise ValueError(
                f"{len(beside):,} images lie beside the class folders of {root}, e.g. {Path(min(beside)).name}, "
                "and would be a class of their own; move them into class folders, or away"
            )
        names = sorted(sorted(labels), key=_natural)  # names that differ in case alone are always in one order
        self.class_to_idx = {name: index for index, name in enumerate(names)}
        found.sort()
        found.sort(key=lambda image: _natural(image[0]))
        self.samples = [(path, self.class_to_idx[label]) for path, label in found]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        path, label = self.samples[index]
        return Path(path).open("rb"), label

    def filename(self, index: int) -> str:
        """The path below the root."""
        return self.samples[index][0][len(self.root) + 1 :]


def check_names(names: Iterable[str], place: str) -> None:
    """Refuse files that would be left out, and names that no record can hold.

    Args:
        names: Of the files of a set.
        place: Its folder or tar file, for the message.

    Raises:
        ValueError: Naming the first of them.
    """
    unread: Counter[str] = Counter()
    first = ""
    for name in names:
        check_text(name)
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  a million Path objects cost seconds
        if suffix in UNREAD_SUFFIXES:
            first = first or name
            unread[suffix] += 1
    if unread:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(unread.items()))
        raise ValueError(
            f"{place} holds files that are not read ({kinds}), e.g. {first}; unpack them, convert them to PNG or JPEG, "
            "or move them away"
        )


def check_text(name: str) -> None:
    """Refuse a file name that is not UTF-8.

    Raises:
        ValueError: Naming it, with its odd bytes escaped.
    """
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the file name {name!a} is not UTF-8, so no record can hold it; rename it") from error


def image_files(root: str) -> Iterator[tuple[str, str]]:
    """Path and label (the innermost folder, empty for the root itself) of each image at any depth, in no order.

    Raises:
        ValueError: Naming a file that would be left out or counted twice, or a name that is not UTF-8.
        OSError: If a folder cannot be listed.
    """
    above = Path(os.path.realpath(root)).parents
    seen: dict[str, str] = {}
    others: list[str] = []
    stack = [root]
    while stack:
        folder = stack.pop()
        real = os.path.realpath(folder)
        if real in seen or Path(real) in above:
            first = seen.get(real, real)
            raise ValueError(
                f"{folder} and {first} are one folder, so its images would count again and again; remove the link"
            )
        seen[real] = folder
        label = "" if folder == root else os.path.basename(folder)  # noqa: PTH119
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    stack.append(entry.path)
                elif entry.name.rpartition(".")[2].lower() not in _ENDINGS:
                    others.append(entry.path)
                elif entry.is_file() or not os.path.exists(entry.path):  # noqa: PTH110  a broken link fails when read
                    check_text(entry.path)
                    yield entry.path, label
                else:
                    raise ValueError(f"{entry.path} is named as an image and is a pipe or device; remove it")
    check_names(others, root)


def _natural(name: str) -> list[int | str]:
    """Sorts ``a2`` before ``a10``, whatever their case."""
    return [int(part) if part.isdecimal() else part for part in _NUMBERS.split(name.lower())]
