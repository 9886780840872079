"""Rows that follow from the 75 measurements of a corruption job: mCE, relative mCE and mean top-1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cim_bench.records.measurement import METRICS
from cim_bench.reports.read.frames import FIELDS, INTERVAL, flat_records
from cim_bench.reports.read.outcomes import outcome_files, read_outcomes, wrong
from cim_bench.reports.stats.intervals import mean_interval
from cim_bench.reports.stats.mce import (
    VARIANTS,
    Floats,
    by_corruption,
    image_mce,
    image_relative_mce,
    mce,
    mean_top1,
    relative_mce,
)

CLEAN = "clean"
RELEASED = "imagenet-c"
GENERATED = "-c-generated"
Interval: TypeAlias = tuple[float | None, float | None]
_NO_INTERVAL: Interval = (None, None)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The top-1 records of one corruption job on one benchmark, by variant, and what else is known of it."""

    records: Mapping[str, Mapping[str, Any]]
    clean_error: float | None
    folder: Path | None
    total: int | None

    @property
    def first(self) -> Mapping[str, Any]:
        return next(iter(self.records.values()))

    @property
    def counts(self) -> list[int]:
        return sorted({int(record["n"]) for name, record in self.records.items() if name != CLEAN})


def is_generated(benchmark: str) -> bool:
    """Whether corruptions were generated on the fly: other numbers than those of the released files."""
    return benchmark.endswith(GENERATED)


def base_of(benchmark: str) -> str:
    """The data set that was corrupted: ``photos`` for ``photos-c-generated``, ``imagenet-1k`` for ``imagenet-c``."""
    return "imagenet-1k" if benchmark == RELEASED else benchmark.removesuffix(GENERATED).removesuffix("-c")


def with_corruption_summaries(frame: pd.DataFrame, folders: Mapping[str, Path]) -> pd.DataFrame:
    """A frame of records with rows of metric ``mce``, ``relative_mce`` and ``top1`` (variant ``mean``) appended.

    One of each for every measured corruption job and benchmark. Their ``n`` is the images behind one corruption.
    The column `INTERVAL` holds 95 % bounds where the job kept outcomes that agree with its records; for a job
    that measured only a part of a set of known size, they are for the whole set. Where one of the 75 is missing,
    the row has no value and says what is missing. There is no relative mCE without a clean error: that of the job
    itself, or of the fine-tuning that made its classifier.

    Args:
        frame: As made by `records_frame`.
        folders: Job folder of each record key, for the outcomes.

    Raises:
        ValueError: If a job's outcomes cannot be read.
    """
    records = flat_records(frame)
    rows = [row for job in _jobs(records, folders) for row in _summaries(job)]
    all_rows = [*({**record, INTERVAL: None} for record in records), *rows]
    return pd.DataFrame(all_rows, columns=[*FIELDS, INTERVAL], dtype=object)


def _jobs(records: Sequence[Mapping[str, Any]], folders: Mapping[str, Path]) -> list[_Job]:
    measured = [r for r in records if r["source"] == "measured" and r["status"] == "ok" and r["metric"] == "top1"]
    others = [record for record in measured if record["evaluator"] != "corruptions"]
    groups: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for record in measured:
        if record["evaluator"] == "corruptions":
            place = (record["key"], record["name"], record["arch"], record["benchmark"], record["split"])
            groups.setdefault(place, {})[record["variant"]] = record
    return [
        _Job(
            records=group,
            clean_error=_clean_error(group, others),
            folder=folders.get(place[0]),
            total=_total(group, others),
        )
        for place, group in groups.items()
    ]


def _clean_error(group: Mapping[str, Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> float | None:
    if CLEAN in group:
        return 1.0 - float(group[CLEAN]["value"])
    job = next(iter(group.values()))
    wanted = ("finetune", "", base_of(job["benchmark"]), job["job"])
    names = ("evaluator", "variant", "benchmark", "key")
    return next((1.0 - float(r["value"]) for r in others if tuple(r[name] for name in names) == wanted), None)


def _total(group: Mapping[str, Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> int | None:
    """Images of the whole set, if the job measured only a part of it and another job tells its size."""
    job = next(iter(group.values()))
    if not job["partial"]:
        return None
    if job["benchmark"] == RELEASED:
        return 50_000
    sizes = [
        int(record["n"])
        for record in others
        if record["benchmark"] == base_of(job["benchmark"]) and not record["partial"]
    ]
    return max((size for size in sizes if size >= int(job["n"])), default=None)


def _summaries(job: _Job) -> list[dict[str, Any]]:
    names = [("mce", ""), ("top1", "mean"), *([("relative_mce", "")] if job.clean_error is not None else [])]
    try:
        errors = by_corruption({k: 1.0 - float(r["value"]) for k, r in job.records.items() if k != CLEAN})
    except ValueError as error:
        return [_row(job, metric, variant, None, _NO_INTERVAL, str(error)) for metric, variant in names]
    values = {"mce": mce(errors), "top1": mean_top1(errors)}
    if job.clean_error is not None:
        values["relative_mce"] = relative_mce(errors, job.clean_error)
    shares, remark = _shares(job, values)
    return [
        _row(job, metric, variant, values[metric], _interval(job, metric, shares), remark) for metric, variant in names
    ]


def _shares(job: _Job, values: Mapping[str, float]) -> tuple[dict[str, Floats], str]:
    """By metric one number an image whose mean is the metric, and a remark if outcomes are not those recorded."""
    partial = bool(job.first["partial"])
    if job.folder is None or not outcome_files(job.folder, partial=partial):
        return {}, ""
    frame = read_outcomes(job.folder, partial=partial)
    lacking = [name for name in VARIANTS if name not in frame]
    if not lacking:
        _, flags = wrong(frame, VARIANTS)
        shares = {"mce": image_mce(flags), "top1": 1.0 - np.mean([flags[name] for name in VARIANTS], axis=0)}
        if CLEAN in frame and "relative_mce" in values:
            _, flags = wrong(frame, [*VARIANTS, CLEAN])
            clean = flags.pop(CLEAN)
            shares["relative_mce"] = image_relative_mce(flags, clean)
        # An interval belongs to the recorded number or is none: outcomes may have gone on since, or lack images.
        shares = {
            metric: found
            for metric, found in shares.items()
            if [found.size] == job.counts and isclose(found.mean(), values[metric], abs_tol=1e-9)
        }
        if "mce" in shares:
            return shares, ""
    return {}, "no interval: the outcomes kept for this job are not those behind its records"


def _interval(job: _Job, metric: str, shares: Mapping[str, Floats]) -> Interval:
    if metric not in shares or shares[metric].size < 2:
        return _NO_INTERVAL
    low, high = mean_interval(shares[metric], job.total)
    return max(METRICS[metric].low, low), min(METRICS[metric].high, high)


def _row(job: _Job, metric: str, variant: str, value: float | None, interval: Interval, remark: str) -> dict[str, Any]:
    counts = job.counts
    uneven = f"the corruptions rest on {counts[0]:,} to {counts[-1]:,} images" if len(counts) > 1 else ""
    part = f"the interval is for all {job.total:,} images" if job.total and interval != _NO_INTERVAL else ""
    warnings = [*(text for record in job.records.values() for text in record["warnings"]), remark, uneven, part]
    return {
        **job.first,
        "metric": metric,
        "variant": variant,
        "value": value,
        "n": counts[0] if counts else job.first["n"],
        "partial": any(record["partial"] for record in job.records.values()),
        "warnings": tuple(dict.fromkeys(filter(None, warnings))),
        INTERVAL: interval,
    }
