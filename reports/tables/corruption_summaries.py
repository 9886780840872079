"""Rows that follow from the 75 measurements of a corruption job: mCE, relative mCE and mean top-1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cim_bench.data.sets import expected_images
from cim_bench.records.facets import CLEAN, FacetKey, Facets, facet_key
from cim_bench.records.measurement import METRICS
from cim_bench.records.outcomes import outcome_files
from cim_bench.records.record import ProtocolInfo
from cim_bench.reports.read.frames import FIELDS, INTERVAL, flat_records
from cim_bench.reports.read.outcomes import Outcomes, read_outcomes
from cim_bench.reports.stats.arrays import Floats
from cim_bench.reports.stats.intervals import mean_interval
from cim_bench.reports.stats.mce import (
    ALEXNET_ERRORS,
    DAMAGES,
    SEVERITIES,
    Damage,
    by_corruption,
    image_mce,
    image_relative_mce,
    mce,
    mean_top1,
    relative_mce,
)

# Lower and upper bound; ``None`` where nothing gives one.
Interval: TypeAlias = tuple[float | None, float | None]
UNCORRUPTED: Facets = {"corruption": CLEAN}
OVER_CORRUPTIONS: Facets = {"mean": "corruptions"}
_NO_INTERVAL: Interval = (None, None)
# What is derived from each job, with the facets of its row.
_SUMMARIES: Mapping[str, Facets] = {"mce": {}, "top1": OVER_CORRUPTIONS, "relative_mce": {}}


@dataclass(frozen=True, kw_only=True)
class _CorruptionJob:
    """The top-1 records of one corruption job on one benchmark, by facets, and what else is known of it."""

    records: Mapping[FacetKey, Mapping[str, Any]]
    clean_error: float | None
    folder: Path | None
    total: int | None

    @property
    def first(self) -> Mapping[str, Any]:
        return next(iter(self.records.values()))

    @property
    def corrupted(self) -> dict[Damage, Mapping[str, Any]]:
        found = [record for record in self.records.values() if "severity" in record["facets"]]
        return {(record["facets"]["corruption"], record["facets"]["severity"]): record for record in found}

    @property
    def counts(self) -> list[int]:
        return sorted({int(record["n"]) for record in self.corrupted.values()})

    @property
    def protocol(self) -> ProtocolInfo:
        first = self.first
        names = ("evaluator", "version", "settings", "passed", "selection", "partial")
        return ProtocolInfo(**{name: first[name] for name in names})


def damage_facets(damage: Damage) -> Facets:
    """The facets of images under a corruption of a severity."""
    corruption, severity = damage
    return {"corruption": corruption, "severity": severity}


def with_corruption_summaries(
    frame: pd.DataFrame, folders: Mapping[str, Path], problems: list[str] | None = None
) -> pd.DataFrame:
    """A frame of records with rows of metric ``mce``, ``relative_mce`` and ``top1`` (`OVER_CORRUPTIONS`) appended.

    One of each for every measured corruption job and benchmark. Their ``n`` is the images behind one corruption.
    The column `INTERVAL` holds 95 % bounds where the job kept outcomes that agree with its records; for a job
    that measured only a part of a set of known size, they are for the whole set. Where one of the 75 is missing,
    the row has no value and says what is missing. There is no relative mCE without a clean error: that of the job
    itself, or of the fine-tuning that made its classifier.

    Args:
        frame: As made by `records_frame`.
        folders: Job folder of each record key, for the outcomes.
        problems: Gets a sentence for each job whose outcomes cannot be read, and which has no intervals; without it,
            that is an error.

    Raises:
        ValueError: If a job's outcomes cannot be read.
    """
    records = flat_records(frame)
    rows = [row for job in _jobs(records, folders) for row in _summaries(job, problems)]
    all_rows = [*({**record, INTERVAL: None} for record in records), *rows]
    return pd.DataFrame(all_rows, columns=[*FIELDS, INTERVAL], dtype=object)


def _jobs(records: Sequence[Mapping[str, Any]], folders: Mapping[str, Path]) -> list[_CorruptionJob]:
    measured = [r for r in records if r["source"] == "measured" and r["status"] == "ok" and r["metric"] == "top1"]
    others = [record for record in measured if record["evaluator"] != "corruptions"]
    groups: dict[tuple[str, ...], dict[FacetKey, Mapping[str, Any]]] = {}
    for record in measured:
        if record["evaluator"] == "corruptions":
            place = (record["key"], record["name"], record["arch"], record["benchmark"], record["split"])
            groups.setdefault(place, {})[facet_key(record["facets"])] = record
    return [
        _CorruptionJob(
            records=group,
            clean_error=_clean_error(group, others),
            folder=folders.get(place[0]),
            total=_total(group, others),
        )
        for place, group in groups.items()
    ]


def _clean_error(group: Mapping[FacetKey, Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> float | None:
    if clean := group.get(facet_key(UNCORRUPTED)):
        return 1.0 - float(clean["value"])
    job = next(iter(group.values()))
    wanted: tuple[object, ...] = ("finetune", {}, job["base"], job["job"])
    names = ("evaluator", "facets", "benchmark", "key")
    return next((1.0 - float(r["value"]) for r in others if tuple(r[name] for name in names) == wanted), None)


def _total(group: Mapping[FacetKey, Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> int | None:
    """Images of the whole set, if the job measured only a part of it and another job tells its size."""
    job = next(iter(group.values()))
    if not job["partial"]:
        return None
    if known := expected_images(job["benchmark"]):
        return max(known)
    sizes = [int(record["n"]) for record in others if record["benchmark"] == job["base"] and not record["partial"]]
    return max((size for size in sizes if size >= int(job["n"])), default=None)


def _summaries(job: _CorruptionJob, problems: list[str] | None) -> list[dict[str, Any]]:
    metrics = [metric for metric in _SUMMARIES if metric != "relative_mce" or job.clean_error is not None]
    try:
        errors = by_corruption({damage: 1.0 - float(r["value"]) for damage, r in job.corrupted.items()})
    except ValueError as error:
        return [_row(job, metric, None, _NO_INTERVAL, str(error)) for metric in metrics]
    values = {"mce": mce(errors), "top1": mean_top1(errors)}
    if job.clean_error is not None:
        values["relative_mce"] = relative_mce(errors, job.clean_error)
    try:
        shares, warning = _shares(job, values)
    except ValueError as error:
        if problems is None:
            raise
        problems.append(str(error))
        shares, warning = {}, "no interval: the outcomes kept for this job are damaged"
    return [_row(job, metric, values[metric], _interval(job, metric, shares), warning) for metric in metrics]


def _shares(job: _CorruptionJob, values: Mapping[str, float]) -> tuple[dict[str, Floats], str]:
    """By metric one number an image whose mean is the metric, and a warning if outcomes are not those recorded."""
    if job.folder is None or not outcome_files(job.folder, partial=job.protocol.partial):
        return {}, ""
    outcomes = read_outcomes(job.folder, job.protocol)
    if all(outcomes.has(damage_facets(damage)) for damage in DAMAGES):
        shares = _image_shares(outcomes, with_clean="relative_mce" in values)
        # An interval belongs to the recorded number or is none: outcomes may have gone on since, or lack images.
        shares = {
            metric: found
            for metric, found in shares.items()
            if [found.size] == job.counts and isclose(found.mean(), values[metric], abs_tol=1e-9)
        }
        if "mce" in shares:
            return shares, ""
    return {}, "no interval: the outcomes kept for this job are not those behind its records"


def _image_shares(outcomes: Outcomes, *, with_clean: bool) -> dict[str, Floats]:
    wanted = [damage_facets(damage) for damage in DAMAGES]
    _, flags = outcomes.wrong(wanted)
    shares: dict[str, Floats] = {
        "mce": image_mce(dict(zip(DAMAGES, flags, strict=True))),
        "top1": 1.0 - np.mean(flags, axis=0),
    }
    if with_clean and outcomes.has(UNCORRUPTED):
        _, (*flags, clean) = outcomes.wrong([*wanted, UNCORRUPTED])
        shares["relative_mce"] = image_relative_mce(dict(zip(DAMAGES, flags, strict=True)), clean)
    return shares


def _interval(job: _CorruptionJob, metric: str, shares: Mapping[str, Floats]) -> Interval:
    if metric not in shares or shares[metric].size < 2:
        return _NO_INTERVAL
    low, high = mean_interval(shares[metric], job.total)
    return max(METRICS[metric].low, low), min(METRICS[metric].high, high)


def _row(job: _CorruptionJob, metric: str, value: float | None, interval: Interval, warning: str) -> dict[str, Any]:
    counts = job.counts
    uneven = f"the corruptions rest on {counts[0]:,} to {counts[-1]:,} images" if len(counts) > 1 else ""
    part = f"the interval is for all {job.total:,} images" if job.total and interval != _NO_INTERVAL else ""
    warnings = [*(text for record in job.records.values() for text in record["warnings"]), warning, uneven, part]
    return {
        **job.first,
        "metric": metric,
        "facets": _SUMMARIES[metric],
        "value": value,
        "chance": _chance(metric, job.first["chance"]),
        "n": counts[0] if counts else job.first["n"],
        "partial": any(record["partial"] for record in job.records.values()),
        "warnings": tuple(dict.fromkeys(filter(None, warnings))),
        INTERVAL: interval,
    }


def _chance(metric: str, top1: float | None) -> float | None:
    """What a guess has: relative mCE of none, for a guess is never worse under corruption."""
    if top1 is None or metric == "top1":
        return top1
    return mce({name: [1.0 - top1] * len(SEVERITIES) for name in ALEXNET_ERRORS}) if metric == "mce" else None
