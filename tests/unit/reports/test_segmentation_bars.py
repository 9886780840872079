"""Bars of the IoU of each class: what stands on them, and jobs that do not belong together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from cim_bench.records.confusions import class_sums, miou, per_class_iou, to_cells
from cim_bench.records.record import Record
from cim_bench.reports import segmentation_bars
from cim_bench.reports.segmentation_bars import draw_class_ious
from cim_bench.reports.stats.sums import bootstrap_of_sums

Write = Callable[..., list[Record]]
Matrices = Callable[..., Any]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn, which are not closed."""
    figures: list[Any] = []
    monkeypatch.setattr(segmentation_bars.plt, "close", figures.append)
    yield figures
    monkeypatch.undo()
    plt.close("all")


def test_bars_are_the_classes_of_both(
    write_segmentation: Write, street_matrices: Matrices, tmp_path: Path, drawn: list[Any]
) -> None:
    found = [street_matrices(right=share) for share in (0.8, 0.6)]
    for name, matrices in zip("ab", found, strict=True):
        write_segmentation(tmp_path / name, {(("window", "whole"),): matrices})
    draw_class_ious([(name.upper(), tmp_path / name, name) for name in "ab"], tmp_path / "new" / "bars.png")
    assert (tmp_path / "new" / "bars.png").stat().st_size > 5000
    (axis,) = drawn[0].axes
    assert axis.get_title() == "IoU of each class, whole: 30 images"
    sums = [class_sums([to_cells(one) for one in matrices], 4) for matrices in found]
    order = np.argsort(-sums[0].sum(0)[1])
    assert [text.get_text() for text in axis.get_yticklabels()] == [
        f"class {c} ({(sums[0][:, 1, c] > 0).sum()})" for c in order
    ]
    widths = [[bar.get_width() for bar in bars.patches] for bars in axis.containers if hasattr(bars, "patches")]
    assert widths == [pytest.approx(100 * per_class_iou(own.sum(0))[order]) for own in sums]
    low, high = (100 * bound for bound in bootstrap_of_sums(sums[0], miou))
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend[0] == f"A: mIoU {100 * miou(sums[0].sum(0)):.1f} [{low:.1f}, {high:.1f}]"
    assert legend[1].startswith("B: ")


def test_a_class_of_few_images_has_no_interval(
    write_segmentation: Write, street_matrices: Matrices, tmp_path: Path, drawn: list[Any]
) -> None:
    matrices = street_matrices()
    matrices[4:, 2] = 0
    write_segmentation(tmp_path / "a", {(): matrices})
    draw_class_ious([("A", tmp_path / "a", "a")], tmp_path / "bars.png")
    (axis,) = drawn[0].axes
    assert axis.get_yticklabels()[-1].get_text() == "class 2 (4)"
    (errors,) = next(container for container in axis.containers if not hasattr(container, "patches")).lines[2]
    lines = [np.array(segment) for segment in errors.get_segments()]
    assert [bool(np.isnan(line).any() or not len(line)) for line in lines] == [False, False, False, True]


def test_jobs_that_do_not_belong_together_are_refused(
    write_segmentation: Write, street_matrices: Matrices, tmp_path: Path
) -> None:
    write_segmentation(tmp_path / "a", {(("window", "whole"),): street_matrices()})
    write_segmentation(tmp_path / "b", {(("window", "slide-341"),): street_matrices()})
    write_segmentation(tmp_path / "c", {(("window", "whole"),): street_matrices(classes=3)})
    for other, message in (("b", "were not tested in one same way"), ("c", "c is not on the classes and images of")):
        with pytest.raises(ValueError, match=message):
            draw_class_ious([("A", tmp_path / "a", "a"), ("X", tmp_path / other, other)], tmp_path / "bars.png")
