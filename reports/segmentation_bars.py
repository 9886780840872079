"""IoU of each class of one model or two, as bars with intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from cim_bench.records.confusions import miou, per_class_iou
from cim_bench.records.facets import FacetKey, column_name
from cim_bench.reports.read.confusions import ImageSums, read_image_sums
from cim_bench.reports.stats.arrays import Counts, Floats
from cim_bench.reports.stats.sums import bootstrap_of_sums

matplotlib.use("Agg")
MOST_CLASSES = 60
FEWEST_IMAGES = 5  # with a class, for an interval of its IoU: resamples of fewer have hardly any spread


@dataclass(frozen=True, kw_only=True)
class ClassIous:
    """IoU of each class of one model.

    Attributes:
        title: The model's.
        values: (C,), NaN where a class neither occurs nor is predicted.
        low: (C,) lower bounds of 95 % bootstrap intervals over images; NaN of a class in fewer than `FEWEST_IMAGES`.
        high: (C,) upper bounds.
        mean: mIoU and its interval.
    """

    title: str
    values: Floats
    low: Floats
    high: Floats
    mean: tuple[float, float, float]


def draw_class_ious(jobs: Sequence[tuple[str, Path, str]], output: Path) -> None:
    """Draw the IoU of each class, those with the most pixels first.

    Args:
        jobs: Title, folder and key of one job or two.
        output: The PNG to write.

    Raises:
        ValueError: As in `read_image_sums`; or if two jobs have not the same classes and images, or no way of testing
            in common.
    """
    sums = [read_image_sums(folder, key) for _, folder, key in jobs]
    for (_, folder, _), other in zip(jobs[1:], sums[1:], strict=True):
        if (other.classes, other.ids) != (sums[0].classes, sums[0].ids):
            raise ValueError(f"{folder} is not on the classes and images of {jobs[0][1]}; give two jobs on one set")
    facets = _common(jobs, sums)
    models = [_ious(title, own.by_facets[facets]) for (title, _, _), own in zip(jobs, sums, strict=True)]
    truth = sums[0].by_facets[facets][:, 1]
    somewhere = np.any([~np.isnan(model.values) for model in models], axis=0)
    order = [place for place in np.argsort(-truth.sum(0), kind="stable") if somewhere[place]]
    labels = [f"{sums[0].classes[place]} ({int((truth[:, place] > 0).sum())})" for place in order]
    name = column_name(dict(facets), {}) if facets else ""
    cut = f", the {MOST_CLASSES} of {len(order)} classes with the most pixels" if len(order) > MOST_CLASSES else ""
    title = f"IoU of each class{f', {name}' if name else ''}: {len(truth):,} images{cut}"
    _draw(models, order[:MOST_CLASSES], labels[:MOST_CLASSES], title, output)


def _common(jobs: Sequence[tuple[str, Path, str]], sums: Sequence[ImageSums]) -> FacetKey:
    """The first way of testing that all jobs have."""
    for facets in sums[0].by_facets:
        if all(facets in other.by_facets for other in sums):
            return facets
    raise ValueError(f"{' and '.join(str(folder) for _, folder, _ in jobs)} were not tested in one same way")


def _ious(title: str, images: Counts) -> ClassIous:
    whole = images.sum(0)
    low, high = bootstrap_of_sums(images, per_class_iou)
    rare = (images[:, 1] > 0).sum(0) < FEWEST_IMAGES
    low[rare] = high[rare] = np.nan
    bounds = bootstrap_of_sums(images, miou)
    mean = float(miou(whole)), float(bounds[0]), float(bounds[1])
    return ClassIous(title=title, values=per_class_iou(whole), low=low, high=high, mean=mean)


def _draw(models: Sequence[ClassIous], order: Sequence[int], labels: Sequence[str], title: str, output: Path) -> None:
    thick = 0.8 / len(models)
    figure, axis = plt.subplots(figsize=(7.5, 1.4 + 0.18 * len(order) * (1 + len(models))), layout="constrained")
    for place, model in enumerate(models):
        values, low, high = (100 * one[order] for one in (model.values, model.low, model.high))
        mean, *bounds = (100 * number for number in model.mean)
        axis.barh(
            np.arange(len(order)) + (place - (len(models) - 1) / 2) * thick,
            values,
            height=thick,
            # the percentile interval of a rare class need not hold its value
            xerr=[np.maximum(values - low, 0), np.maximum(high - values, 0)],
            label=f"{model.title}: mIoU {mean:.1f} [{bounds[0]:.1f}, {bounds[1]:.1f}]",
            error_kw={"elinewidth": 0.8, "capsize": 1.5},
        )
    axis.set_yticks(np.arange(len(order)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.margins(y=0.01)
    axis.set_xlabel(
        "IoU in percent, with a 95% bootstrap interval over images "
        f"where at least {FEWEST_IMAGES} have the class\nin brackets: images with the class",
        fontsize=8,
    )
    axis.set_title(title, fontsize=9)
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    plt.close(figure)
