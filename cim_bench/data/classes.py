"""The WordNet ids (wnids) of ImageNet-1k, -A and -R, read from the lists that timm ships; imports no torch."""

from __future__ import annotations

import functools
from importlib import resources, util

_FOLDER = ("data", "_info")


def imagenet_wnids() -> tuple[str, ...]:
    """The 1,000 wnids of ImageNet-1k, in the order of the labels (which is also their sorted order).

    Raises:
        ValueError: If the installed timm does not ship the list.
    """
    return _lines("imagenet_synsets.txt", 1000)


def imagenet_a_wnids() -> tuple[str, ...]:
    """The 200 wnids of ImageNet-A, sorted (Hendrycks et al., Natural Adversarial Examples, 2021).

    Raises:
        ValueError: If the installed timm does not ship the list.
    """
    return _subset("imagenet_a_indices.txt")


def imagenet_r_wnids() -> tuple[str, ...]:
    """The 200 wnids of ImageNet-R, sorted; 86 of them are also in ImageNet-A (Hendrycks et al., 2021).

    Raises:
        ValueError: If the installed timm does not ship the list.
    """
    return _subset("imagenet_r_indices.txt")


def _subset(file: str) -> tuple[str, ...]:
    """The wnids whose labels a file lists."""
    labels = imagenet_wnids()
    return tuple(sorted(labels[int(line)] for line in _lines(file, 200)))


@functools.cache
def _lines(file: str, count: int) -> tuple[str, ...]:
    spec = util.find_spec("timm")
    if spec is None:
        raise ValueError(
            "the lists of ImageNet's wnids come with timm, which is not installed: pip install timm>=1.0.9"
        )
    # a module that is made but never executed: its files can be read without the seconds that timm and torch take
    package = resources.files(util.module_from_spec(spec))
    try:
        lines = tuple(package.joinpath(*_FOLDER, file).read_text(encoding="ascii").split())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"the installed timm lacks {'/'.join(_FOLDER)}/{file}: pip install 'timm>=1.0.9'") from error
    if len(lines) != count:
        raise ValueError(f"timm's {file} has {len(lines)} entries, not {count}: install timm again")
    return lines
