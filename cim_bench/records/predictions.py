"""Predicted masks of a few images, as pictures that say which job made them: for people, no number rests on them.

A job keeps ``predictions/ID.png``, class indices with a palette, which any viewer shows in the colours that
`class_colours` gives.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from cim_bench.common.files import write_atomic

Mask: TypeAlias = NDArray[np.uint8]

PREDICTIONS = "predictions"
KEPT = 8  # images of a set
_JOB = "job"  # text of a PNG
_GOLDEN = (5**0.5 - 1) / 2  # of a turn: hues that follow each other are far apart, however many there are


def is_shown(index: int, total: int) -> bool:
    """Whether the predicted mask of an image is kept: that of `KEPT` ones, evenly spread over the set.

    Args:
        index: Of the image in its set.
        total: Images of the set.
    """
    return index in {place * total // KEPT for place in range(KEPT)}


def class_colours(classes: int) -> NDArray[np.uint8]:
    """A colour for each class, the same for a class whatever their number: (C, 3) RGB."""
    colours = [colorsys.hls_to_rgb(place * _GOLDEN % 1, (0.5, 0.72, 0.34)[place % 3], 0.8) for place in range(classes)]
    made: NDArray[np.uint8] = np.rint(255 * np.array(colours).reshape(classes, 3)).astype(np.uint8)
    return made


def prediction_file(folder: Path, image_id: str) -> Path:
    """Where a job keeps the predicted mask of an image."""
    return (folder / PREDICTIONS / image_id).with_suffix(".png")


def prediction_files(folder: Path) -> Iterator[Path]:
    """The predicted masks that a job's folder keeps."""
    return (file for file in sorted((folder / PREDICTIONS).rglob("*.png")) if not file.name.startswith("."))


def write_prediction(file: Path, mask: Mask, key: str = "") -> None:
    """Write a predicted mask, whole or not at all.

    Args:
        file: As of `prediction_file`.
        mask: (H, W) class indices.
        key: The job's, which `read_prediction` asks for.

    Raises:
        OSError: Naming the file, if it cannot be written.
    """
    image, told, memory = Image.fromarray(mask, "L"), PngImagePlugin.PngInfo(), io.BytesIO()
    image.putpalette([int(value) for value in class_colours(256).flat])  # makes it a picture with a palette
    told.add_text(_JOB, key)
    image.save(memory, "PNG", pnginfo=told, optimize=True)
    write_atomic(file, memory.getvalue())


def read_prediction(file: Path, key: str = "") -> Mask:
    """A predicted mask: (H, W) class indices.

    Args:
        file: As of `prediction_file`.
        key: The job's; those of any are taken without it.

    Raises:
        ValueError: Naming the file, if it cannot be read, is no such mask, or another job's.
    """
    try:
        with Image.open(file) as image:
            image.load()
            mode, told, mask = image.mode, image.info.get(_JOB), np.array(image)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ValueError(f"{file} cannot be read ({error}); delete its job's folder and run again") from error
    if mode != "P" or told is None:
        raise ValueError(f"{file} is no predicted mask of a job; move it away")
    if key and told != key:
        raise ValueError(f"{file} is not of this job; delete it and run again")
    return mask
