"""The part of a comparison that is of segmentation: mIoU and its kin, from confusion matrices of the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from cim_bench.records.confusions import NUMBERS
from cim_bench.records.facets import FacetKey, Facets, column_name
from cim_bench.reports.read.confusions import ImageSums, read_image_sums
from cim_bench.reports.read.jobs import EvaluatedJob, Place, settings_footnotes, unpaired
from cim_bench.reports.stats.sums import paired_bootstrap_of_sums

METRICS = tuple(NUMBERS)
Jobs: TypeAlias = Mapping[str, Mapping[Place, EvaluatedJob]]
JobPair: TypeAlias = tuple[EvaluatedJob, EvaluatedJob]


@dataclass(frozen=True, kw_only=True)
class SumsRow:
    """A number of segmentation of A and B on the same images.

    Attributes:
        evaluator: The protocol.
        benchmark: The data set.
        facets: What distinguishes the number from others of that protocol.
        name: What tables call these facets; empty for none.
        metric: Such as ``miou``.
        n: How many images.
        a: Of A, a fraction.
        b: Of B.
        difference: A minus B.
        interval: 95 % paired bootstrap interval of the difference, over images.
        p: Two-sided, of the same bootstrap.
    """

    evaluator: str
    benchmark: str
    facets: Facets
    name: str
    metric: str
    n: int
    a: float
    b: float
    difference: float
    interval: tuple[float, float]
    p: float


def compare_sums(ours: Jobs, theirs: Jobs, seed: int, footnotes: list[str], problems: list[str]) -> list[SumsRow]:
    """One row for each evaluator, benchmark, facets and metric that both have.

    Args:
        ours: Jobs of A by metric and place.
        theirs: Jobs of B.
        seed: Of the bootstrap.
        footnotes: Gets what is left out, and in what the two differ.
        problems: Gets a sentence for each pair of jobs whose files are damaged or hold other images.
    """
    rows: list[SumsRow] = []
    for place in sorted(ours["miou"].keys() & theirs["miou"].keys()):
        first = ours["miou"][place], theirs["miou"][place]
        if reason := unpaired(*first):
            footnotes.append(f"left out: {' '.join(place[:2])}, {reason}")
            continue
        try:
            sums = _aligned(place, first)
        except ValueError as error:
            problems.append(str(error))
            continue
        for metric in METRICS:
            if place in ours[metric] and place in theirs[metric]:
                pair = ours[metric][place], theirs[metric][place]
                rows += _rows(place, metric, pair, sums, seed, footnotes)
        footnotes.extend(settings_footnotes(place, first))
    return rows


def _rows(
    place: Place, metric: str, pair: JobPair, sums: tuple[ImageSums, ImageSums], seed: int, footnotes: list[str]
) -> list[SumsRow]:
    rows = []
    for key in (key for key in pair[0].records if key in pair[1].records):
        values, name = [], _name(key, pair[0])
        for job, own in zip(pair, sums, strict=True):
            measurement = job.records[key].measurement
            assert measurement is not None
            if own.agree(metric, key, measurement.value, measurement.n):
                values.append(measurement.value)
        if len(values) < 2:
            what = " ".join(filter(None, (*place[:2], name, metric)))
            footnotes.append(f"left out: {what}, the confusion matrices kept are not those behind the records")
            continue
        found = paired_bootstrap_of_sums(sums[0].by_facets[key], sums[1].by_facets[key], NUMBERS[metric], seed)
        row = SumsRow(
            evaluator=place[0],
            benchmark=place[1],
            facets=dict(key),
            name=name,
            metric=metric,
            n=len(sums[0].ids),
            a=values[0],
            b=values[1],
            difference=found.difference,
            interval=(found.low, found.high),
            p=found.p,
        )
        rows.append(row)
    return rows


def _name(key: FacetKey, job: EvaluatedJob) -> str:
    return column_name(dict(key), job.first.protocol.settings) if key else ""


def _aligned(place: Place, pair: JobPair) -> tuple[ImageSums, ImageSums]:
    """The sums of both, of the same images and truth.

    Raises:
        ValueError: If the two have different images, classes or masks; or as in `read_image_sums`.
    """
    one, two = (read_image_sums(job.folder, job.first.key) for job in pair)
    where = f"{place[0]} on {place[1]}: {pair[0].folder} and {pair[1].folder}"
    if one.ids != two.ids:
        odd = sorted({*one.ids} ^ {*two.ids})
        raise ValueError(f"{where} are not on the same images, {len(odd):,} differ, e.g. {odd[0]}")
    if one.classes != two.classes:
        raise ValueError(f"{where} have not the same classes")
    truth = next(iter(one.by_facets.values()))[:, 1], next(iter(two.by_facets.values()))[:, 1]
    if (clash := (truth[0] != truth[1]).any(1)).any():
        image = one.ids[int(np.flatnonzero(clash)[0])]
        raise ValueError(f"{where} were scored against different masks of {int(clash.sum()):,} images, e.g. {image}")
    return one, two
