"""Predicted masks that jobs kept, over their images and beside the truth, as one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from cim_bench.data.segmentation import IGNORED, SegmentationSet
from cim_bench.records.predictions import Mask, class_colours, is_shown, prediction_file, read_prediction

matplotlib.use("Agg")
MOST_IN_LEGEND = 40
_OPACITY = 0.6  # of the colours over the image
_WIDTH = 3.0  # of a panel, inches


class Shown(NamedTuple):
    """A job whose predictions are drawn.

    Attributes:
        title: Above its column.
        folder: The job's.
        key: The job's.
    """

    title: str
    folder: Path
    key: str


class _Line(NamedTuple):
    """One image with its masks: the truth, then those of the jobs."""

    name: str
    image: Image.Image
    masks: Sequence[Mask]


def draw_predictions(jobs: Sequence[Shown], images: SegmentationSet, output: Path) -> None:
    """Draw the masks that jobs kept: each image, its truth, and what each job predicted.

    Pixels without a label are left as they are in the truth; above a prediction stands how many of the labelled pixels
    it has right.

    Args:
        jobs: Those to draw, one column each.
        images: The set that they scored.
        output: The PNG to write.

    Raises:
        ValueError: Naming the folder, if a job keeps no predicted mask of any of these images; naming the file, if one
            cannot be read or is another job's.
        ImageError: If an image cannot be read.
    """
    lines = []
    for index in range(len(images)):
        files = [prediction_file(job.folder, images.image_id(index)) for job in jobs]
        if is_shown(index, len(images)) and all(file.exists() for file in files):
            image, truth = images.read(index)
            masks = [_fitting(read_prediction(f, job.key), truth.numpy()) for f, job in zip(files, jobs, strict=True)]
            lines.append(_Line(images.image_id(index), image, [truth.numpy(), *masks]))
    if not lines:
        folders = " and ".join(str(job.folder) for job in jobs)
        raise ValueError(
            f"{folders} keep no predicted masks of images of {images.name}/{images.split} that are shown; "
            "give jobs on this set, or delete them and run again"
        )
    _draw(lines, ["image", "truth", *(job.title for job in jobs)], images.classes, output)


def overlay(image: Image.Image, mask: Mask, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image under the colours of its classes; (H, W, 3).

    Args:
        image: RGB.
        mask: (H, W) class indices; `IGNORED` shows the image.
        colours: (C, 3) RGB.
    """
    pixels = np.asarray(image, np.float64)
    labelled = mask != IGNORED
    painted = pixels.copy()
    painted[labelled] = (1 - _OPACITY) * pixels[labelled] + _OPACITY * colours[mask[labelled]]
    whole: NDArray[np.uint8] = np.rint(painted).astype(np.uint8)
    return whole


def _fitting(mask: Mask, truth: Mask) -> Mask:
    """A mask at the truth's size."""
    height, width = truth.shape
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def _draw(lines: Sequence[_Line], titles: Sequence[str], classes: Sequence[str], output: Path) -> None:
    colours, legend = class_colours(256), _legend(lines, classes)
    heights = [_WIDTH * line.image.height / line.image.width for line in lines]
    columns = max(1, round(len(titles) * _WIDTH / 2.2))  # of the legend
    foot = 0.3 + 0.25 * -(-len(legend) // columns)
    size = (_WIDTH * len(titles), sum(heights) + 0.35 * len(lines) + foot)
    figure, axes = plt.subplots(
        len(lines), len(titles), figsize=size, squeeze=False, height_ratios=heights, layout="constrained"
    )
    for row, (line, axes_of_row) in enumerate(zip(lines, axes, strict=True)):
        truth = line.masks[0]
        pictures = [np.asarray(line.image), *(overlay(line.image, mask, colours) for mask in line.masks)]
        notes = [line.name[-32:], "", *(_right(mask, truth) for mask in line.masks[1:])]
        for column, (axis, picture) in enumerate(zip(axes_of_row, pictures, strict=True)):
            axis.imshow(picture)
            axis.axis("off")
            above = titles[column] if row == 0 else ""
            axis.set_title("\n".join(filter(None, [above, notes[column]])), fontsize=8)
    figure.legend(handles=legend, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    plt.close(figure)


def _right(mask: Mask, truth: Mask) -> str:
    labelled = truth != IGNORED
    share = float((mask == truth)[labelled].mean()) if labelled.any() else 0.0
    return f"{100 * share:.0f} % of pixels right"


def _legend(lines: Sequence[_Line], classes: Sequence[str]) -> list[Patch]:
    """The classes that occur, those with the most pixels first, as far as there is place."""
    colours = (_OPACITY * class_colours(256) + (1 - _OPACITY) * 128) / 255  # as over grey
    names = [*classes, *(f"class {place}" for place in range(len(classes), IGNORED))]  # answers may have further ones
    counts = np.zeros(256, np.int64)
    for line in lines:
        for mask in line.masks:
            counts += np.bincount(mask.ravel(), minlength=256)
    found = [place for place in np.argsort(-counts, kind="stable") if counts[place] and place != IGNORED]
    patches = [Patch(color=colours[place], label=names[place]) for place in found[:MOST_IN_LEGEND]]
    if more := len(found) - len(patches):
        patches.append(Patch(color="none", label=f"and {more} more"))
    return patches
