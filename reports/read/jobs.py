"""The evaluation jobs of one subject with the outcomes they kept, and their alignment with those of another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from cim_bench.records.facets import FacetKey, facet_key
from cim_bench.records.outcomes import outcome_files
from cim_bench.records.record import Record
from cim_bench.records.store import read_runs
from cim_bench.reports.read.outcomes import Outcomes, read_outcomes

# Evaluator, benchmark, split; a subject has one job for each.
Place: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class EvaluatedJob:
    """What one job measured: its folder, and top-1 records by facets."""

    folder: Path
    records: dict[FacetKey, Record] = field(default_factory=dict)

    @property
    def first(self) -> Record:
        """Any of its records."""
        return next(iter(self.records.values()))

    def outcomes(self) -> Outcomes:
        """The images behind its records.

        Raises:
            ValueError: As in `read_outcomes`.
        """
        return read_outcomes(self.folder, self.first.protocol)


def jobs_of(folder: Path, problems: list[str]) -> dict[Place, EvaluatedJob]:
    """The jobs of a subject that measured top-1, by place.

    Args:
        folder: The subject's, such as ``runs/demo/CIM``.
        problems: Gets a sentence for each damaged file of records.

    Raises:
        ValueError: If there are none, or two for one place.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give one of a subject, such as runs/demo/CIM")
    jobs: dict[Place, EvaluatedJob] = {}
    for record, path in read_runs(folder, problems):
        measurement = record.measurement
        if measurement is None or measurement.metric != "top1" or record.provenance.source != "measured":
            continue
        place = (record.protocol.evaluator, measurement.benchmark, measurement.split)
        job = jobs.setdefault(place, EvaluatedJob(folder=path))
        if job.folder != path:
            raise ValueError(
                f"{folder} has two jobs for {place[0]} on {place[1]}, {job.folder.name} and {path.name}; "
                "give the folder of one subject, and move one of the two away"
            )
        job.records[facet_key(measurement.facets)] = record
    if not jobs:
        reasons = f" ({'; '.join(problems)})" if problems else ""
        raise ValueError(f"no measured top-1 in {folder}; give the folder of a subject that was evaluated{reasons}")
    return jobs


def unpaired(one: EvaluatedJob, two: EvaluatedJob) -> str:
    """Why two jobs cannot be compared; empty if they can."""
    versions = one.first.protocol.version, two.first.protocol.version
    if versions[0] != versions[1]:
        return f"versions {versions[0]} and {versions[1]} of the protocol"
    for job in (one, two):
        if not outcome_files(job.folder, partial=job.first.protocol.partial):
            return f"{job.folder} keeps no outcomes"
    return ""


def aligned(place: Place, pair: tuple[EvaluatedJob, EvaluatedJob]) -> tuple[Outcomes, Outcomes]:
    """The outcomes of both, in the same order of images.

    Raises:
        ValueError: If the two have different images, or different labels for one; or as in `read_outcomes`.
    """
    first, second = (_sorted(job.outcomes()) for job in pair)
    one, two = first.frame, second.frame
    where = f"{place[0]} on {place[1]}: {pair[0].folder} and {pair[1].folder}"
    if len(one) != len(two) or (one["id"] != two["id"]).any():
        odd = sorted(set(one["id"]) ^ set(two["id"]))
        part = "; one is not finished" if pair[0].first.protocol.partial != pair[1].first.protocol.partial else ""
        raise ValueError(f"{where} are not on the same images, {len(odd):,} differ, e.g. {odd[0]}{part}")
    if (clash := one["label"] != two["label"]).any():
        raise ValueError(f"{where} give {int(clash.sum()):,} images different labels, e.g. {one['id'][clash].iloc[0]}")
    return first, second


def _sorted(outcomes: Outcomes) -> Outcomes:
    return replace(outcomes, frame=outcomes.frame.sort_values("id", ignore_index=True))
