"""The evaluation jobs of one subject with the outcomes they kept, and their alignment with those of another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from cim_bench.records.confusions import confusion_files
from cim_bench.records.facets import FacetKey, facet_key
from cim_bench.records.outcomes import outcome_files
from cim_bench.records.record import Record
from cim_bench.records.store import read_runs
from cim_bench.reports.read.outcomes import Outcomes, read_outcomes

# Evaluator, benchmark, split; a subject has one job for each. Where it has several, their settings are told behind the
# evaluator's name.
Place: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class EvaluatedJob:
    """What one job measured: its folder, and the records of one metric by facets."""

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


def jobs_of(folder: Path, problems: list[str], metrics: Collection[str]) -> dict[str, dict[Place, EvaluatedJob]]:
    """The jobs of a subject that measured one of some metrics, by metric and place.

    Args:
        folder: The subject's, such as ``runs/demo/CIM``.
        problems: Gets a sentence for each damaged file of records.
        metrics: Those asked for.

    Raises:
        ValueError: If there are none, or two for one place with the same settings.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give one of a subject, such as runs/demo/CIM")
    found: dict[str, dict[Place, list[EvaluatedJob]]] = {metric: {} for metric in metrics}
    for record, path in read_runs(folder, problems):
        measurement = record.measurement
        if measurement is None or measurement.metric not in found or record.provenance.source != "measured":
            continue
        place = (record.protocol.evaluator, measurement.benchmark, measurement.split)
        jobs = found[measurement.metric].setdefault(place, [])
        if not jobs or jobs[-1].folder != path:
            jobs.append(EvaluatedJob(folder=path))
        jobs[-1].records[facet_key(measurement.facets)] = record
    if not any(found.values()):
        reasons = f" ({'; '.join(problems)})" if problems else ""
        raise ValueError(
            f"no measured {' or '.join(metrics)} in {folder}; give the folder of a subject that was evaluated{reasons}"
        )
    return {
        metric: {own: job for place, jobs in places.items() for own, job in _told_apart(folder, place, jobs)}
        for metric, places in found.items()
    }


def _told_apart(folder: Path, place: Place, jobs: Sequence[EvaluatedJob]) -> list[tuple[Place, EvaluatedJob]]:
    """Jobs of one place; several, as of a sweep, by their settings, which are then part of the evaluator's name."""
    if len(jobs) == 1:
        return [(place, jobs[0])]
    told: dict[Place, EvaluatedJob] = {}
    for job in jobs:
        passed = sorted(job.first.protocol.passed.items())
        name = f"{place[0]} with {', '.join(f'{k}={v}' for k, v in passed) or 'its defaults'}"
        other = told.setdefault((name, *place[1:]), job)
        if other is not job:
            raise ValueError(
                f"{folder} has two jobs for {place[0]} on {place[1]}, {other.folder.name} and {job.folder.name}; "
                "give the folder of one subject, and move one of the two away"
            )
    return list(told.items())


def unpaired(one: EvaluatedJob, two: EvaluatedJob) -> str:
    """Why two jobs cannot be compared image by image; empty if they can."""
    versions = one.first.protocol.version, two.first.protocol.version
    if versions[0] != versions[1]:
        return f"versions {versions[0]} and {versions[1]} of the protocol"
    for job in (one, two):
        if not outcome_files(job.folder, partial=job.first.protocol.partial) and not confusion_files(job.folder):
            return f"{job.folder} keeps no outcomes"
    return ""


def settings_footnotes(place: Place, pair: tuple[EvaluatedJob, EvaluatedJob]) -> list[str]:
    """In which settings two jobs differ, and that they are not finished."""
    passed = [job.first.protocol.passed for job in pair]
    differing = sorted(k for k in passed[0].keys() | passed[1].keys() if passed[0].get(k) != passed[1].get(k))
    partial = ["only a part of the images was measured"] if any(j.first.protocol.partial for j in pair) else []
    settings = [f"A and B differ in {', '.join(differing)}"] if differing else []
    return [f"{' '.join(place[:2])}: {text}" for text in (*settings, *partial)]


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
