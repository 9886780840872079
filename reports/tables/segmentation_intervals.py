"""Intervals of mIoU and its kin, from the confusion matrix that a job kept of each image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cim_bench.records.confusions import NUMBERS, confusion_files
from cim_bench.records.facets import facet_key
from cim_bench.reports.read.confusions import ImageSums, read_image_sums
from cim_bench.reports.read.frames import FIELDS, INTERVAL, flat_records
from cim_bench.reports.stats.sums import bootstrap_of_sums


def with_segmentation_intervals(
    frame: pd.DataFrame, folders: Mapping[str, Path], problems: list[str] | None = None
) -> pd.DataFrame:
    """A frame of records in which measured numbers of segmentation have a 95 % bootstrap interval over images.

    Args:
        frame: With the column `INTERVAL`.
        folders: Job folder of each record key.
        problems: Gets a sentence for each job whose confusion matrices cannot be read, and which has no intervals;
            without it, that is an error.

    Raises:
        ValueError: If a job's confusion matrices cannot be read.
    """
    kept: dict[str, ImageSums | None] = {}
    rows = [_with_interval(row, folders, kept, problems) for row in flat_records(frame)]
    return pd.DataFrame(rows, columns=[*FIELDS, INTERVAL], dtype=object)


def _with_interval(
    record: dict[str, Any], folders: Mapping[str, Path], kept: dict[str, ImageSums | None], problems: list[str] | None
) -> dict[str, Any]:
    key, metric = record["key"], record["metric"]
    folder = folders.get(key)
    if metric not in NUMBERS or record["source"] != "measured" or folder is None or not confusion_files(folder):
        return record
    if key not in kept:
        try:
            kept[key] = read_image_sums(folder, key)
        except ValueError as error:
            if problems is None:
                raise
            problems.append(str(error))
            kept[key] = None
    found, facets = kept[key], facet_key(record["facets"])
    if found is None:
        return _without(record, "the confusion matrices kept for this job are damaged")
    if not found.agree(metric, facets, record["value"], record["n"]):
        return _without(record, "the confusion matrices kept for this job are not those behind its records")
    if len(found.ids) < 2:
        return record
    low, high = bootstrap_of_sums(found.by_facets[facets], NUMBERS[metric])
    return {**record, INTERVAL: (float(low), float(high))}


def _without(record: dict[str, Any], reason: str) -> dict[str, Any]:
    return {**record, "warnings": (*record["warnings"], f"no interval: {reason}")}
