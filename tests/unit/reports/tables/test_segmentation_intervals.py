"""Intervals of segmentation belong to the recorded number, or are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cim_bench.records.confusions import NUMBERS, class_sums, to_cells
from cim_bench.records.record import Record
from cim_bench.reports.read.frames import INTERVAL, flat_records, records_frame
from cim_bench.reports.stats.sums import bootstrap_of_sums
from cim_bench.reports.tables.segmentation_intervals import with_segmentation_intervals

Write = Callable[..., list[Record]]
WINDOWS = (("window", "whole"),), (("window", "slide-341"),)


def filled(records: list[Record], folder: Path, problems: list[str] | None = None) -> list[dict[str, Any]]:
    frame = records_frame(records).assign(**{INTERVAL: None})
    return flat_records(with_segmentation_intervals(frame, {records[0].key: folder}, problems))


def test_each_number_has_the_interval_of_its_images(
    write_segmentation: Write, street_matrices: Callable[..., Any], tmp_path: Path
) -> None:
    found = {window: street_matrices(right=share) for window, share in zip(WINDOWS, (0.6, 0.8), strict=True)}
    rows = filled(write_segmentation(tmp_path / "job", found), tmp_path / "job")
    assert len(rows) == 8
    for row in rows:
        sums = class_sums([to_cells(one) for one in found[tuple(row["facets"].items())]], 4)
        assert row[INTERVAL] == bootstrap_of_sums(sums, NUMBERS[row["metric"]])
        assert row[INTERVAL][0] < row["value"] < row[INTERVAL][1]


def test_no_interval_without_files_or_for_other_numbers(
    write_segmentation: Write, street_matrices: Callable[..., Any], make: Callable[..., Record], tmp_path: Path
) -> None:
    records = write_segmentation(tmp_path / "job", {(): street_matrices()})
    assert {row[INTERVAL] for row in filled(records, tmp_path)} == {None}
    assert filled([make(key="job")], tmp_path / "job")[0][INTERVAL] is None
    (one, *_) = write_segmentation(tmp_path / "one", {(): street_matrices(1)})
    assert filled([one], tmp_path / "one")[0][INTERVAL] is None  # a single image has no spread


def test_an_interval_of_other_matrices_is_none(
    write_segmentation: Write, street_matrices: Callable[..., Any], tmp_path: Path
) -> None:
    (record, *_) = write_segmentation(tmp_path / "job", {(): street_matrices()})
    assert record.measurement is not None
    (row,) = filled([replace(record, measurement=replace(record.measurement, value=0.5))], tmp_path / "job")
    assert row[INTERVAL] is None
    assert row["warnings"] == (
        "no interval: the confusion matrices kept for this job are not those behind its records",
    )


def test_damage_is_said_once(write_segmentation: Write, street_matrices: Callable[..., Any], tmp_path: Path) -> None:
    records = write_segmentation(tmp_path / "job", {(): street_matrices()})
    (file,) = (tmp_path / "job").rglob("*.parquet")
    file.write_bytes(b"half")
    problems: list[str] = []
    rows = filled(records, tmp_path / "job", problems)
    assert {row[INTERVAL] for row in rows} == {None}
    assert {row["warnings"] for row in rows} == {("no interval: the confusion matrices kept for this job are damaged",)}
    assert [str(file) in problem for problem in problems] == [True]
    with pytest.raises(ValueError, match=r"all\.parquet is damaged"):
        filled(records, tmp_path / "job")


def test_a_frame_without_segmentation_stays_as_it_is(make: Callable[..., Record]) -> None:
    frame = records_frame([make(), make(error="x")]).assign(**{INTERVAL: None})
    pd.testing.assert_frame_equal(with_segmentation_intervals(frame, {}), frame)
