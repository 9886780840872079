"""Two subjects on the same images: differences with paired intervals and tests, from what jobs kept of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cim_bench.records.facets import FacetKey, Facets, column_name
from cim_bench.reports.compare_segmentation import METRICS, SumsRow, compare_sums
from cim_bench.reports.read.jobs import EvaluatedJob, Place, aligned, jobs_of, settings_footnotes, unpaired
from cim_bench.reports.read.outcomes import Outcomes
from cim_bench.reports.render.text import grid, plain
from cim_bench.reports.stats.mce import DAMAGES, image_mce
from cim_bench.reports.stats.paired import bootstrap_mean, discordant, mcnemar, paired_bootstrap
from cim_bench.reports.tables.corruption_summaries import damage_facets
from cim_bench.reports.tables.footnotes import DASH

_PLACE = ("Evaluator", "Benchmark", "Variant")
_NUMBERS = ("n", "A (%)", "B (%)", "A − B [95%]")


@dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """Top-1 of A and B on the same images.

    Attributes:
        evaluator: The protocol.
        benchmark: The data set.
        facets: What distinguishes the number from others of that protocol.
        name: What tables call these facets; empty for none.
        n: How many images.
        a: Accuracy of A, a fraction.
        b: Accuracy of B.
        difference: A minus B.
        interval: 95 % bootstrap interval of the difference, over images.
        only_a: How many images A alone has right.
        only_b: How many B alone has right.
        p: Of McNemar's exact two-sided test.
    """

    evaluator: str
    benchmark: str
    facets: Facets
    name: str
    n: int
    a: float
    b: float
    difference: float
    interval: tuple[float, float]
    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True, kw_only=True)
class MceRow:
    """mCE of A and B over the images that both have under all corruptions; ratios, of which lower is better.

    Attributes:
        benchmark: The corrupted set.
        n: How many images.
        a: mCE of A.
        b: mCE of B.
        difference: A minus B.
        interval: 95 % bootstrap interval of the difference, over images with all their corruptions.
    """

    benchmark: str
    n: int
    a: float
    b: float
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two subjects wherever both have measured top-1 or mIoU on the same images.

    Attributes:
        a: Folder of the one.
        b: Folder of the other.
        accuracies: One row for each evaluator, benchmark and facets.
        mces: One row for each set of which both measured all corruptions.
        sums: One row for each number of segmentation, such as mIoU.
        footnotes: What was left out, and in what the two differ.
        problems: What should be here and is not, because files are damaged or hold other images; a sentence each.
    """

    a: Path
    b: Path
    accuracies: tuple[AccuracyRow, ...]
    mces: tuple[MceRow, ...]
    sums: tuple[SumsRow, ...]
    footnotes: tuple[str, ...]
    problems: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Tables in percent, with the footnotes below."""
        blocks = [f"### A: {plain(str(self.a))}, B: {plain(str(self.b))}"]
        if self.accuracies:
            blocks += [
                "Top-1 on the same images: difference with a 95% bootstrap interval over images, images that only one "
                "has right,\nand McNemar's exact two-sided p, not corrected for the number of rows.",
                _grid([*_PLACE, *_NUMBERS, "only A", "only B", "p"], [_accuracy_texts(row) for row in self.accuracies]),
            ]
        if self.mces:
            blocks += [
                "mCE, lower is better; the bootstrap is over images with all their corruptions.",
                _grid(
                    ["Benchmark", "n", "mCE A (%)", "mCE B (%)", "A − B [95%]"],
                    [[row.benchmark, *_number_texts(row)] for row in self.mces],
                ),
            ]
        if self.sums:
            blocks += [
                "Segmentation of the same images: difference with a 95% interval and two-sided p of a paired bootstrap "
                "over images,\nnot corrected for the number of rows.",
                _grid([*_PLACE, "Metric", *_NUMBERS, "p"], [_sums_texts(row) for row in self.sums]),
            ]
        blocks.append("\n".join(f"- {plain(footnote)}" for footnote in self.footnotes))
        return "\n\n".join(block for block in blocks if block) + "\n"


def compare(a: Path, b: Path, seed: int = 0) -> Comparison:
    """Compare two subjects wherever both have measured top-1 or mIoU on the same images, joined by image id.

    Args:
        a: Folder of a subject in an output folder, such as ``runs/demo/CIM``.
        b: Folder of the other.
        seed: Of the bootstrap.

    Raises:
        ValueError: If a folder is none or has no measured records, or if nothing can be paired.
    """
    problems: list[str] = []
    own, others = (jobs_of(folder, problems, ("top1", *METRICS)) for folder in (a, b))
    ours, theirs = own["top1"], others["top1"]
    accuracies: list[AccuracyRow] = []
    mces: list[MceRow] = []
    footnotes: list[str] = []
    for place in sorted(ours.keys() & theirs.keys()):
        pair = ours[place], theirs[place]
        if reason := unpaired(*pair):
            footnotes.append(f"left out: {' '.join(place[:2])}, {reason}")
            continue
        try:
            outcomes = aligned(place, pair)
        except ValueError as error:
            problems.append(str(error))
            continue
        for key in (key for key in pair[0].records if key in pair[1].records):
            if row := _accuracy_row(place, key, pair, outcomes, seed):
                accuracies.append(row)
            else:
                name = " ".join(filter(None, (*place[:2], _name(key, pair[0]))))
                footnotes.append(f"left out: {name}, the outcomes kept are not those behind the records")
        if place[0] == "corruptions" and (total := _mce_row(place, outcomes, seed)):
            mces.append(total)
        footnotes.extend(settings_footnotes(place, pair))
    for metric in ("top1", "miou"):
        for place in sorted(own[metric].keys() ^ others[metric].keys()):
            footnotes += [f"left out: {' '.join(place[:2])}, of one of the two alone"] if " with " in place[0] else []
    sums = compare_sums(own, others, seed, footnotes, problems)
    if not accuracies and not sums:
        reasons = f": {'; '.join([*footnotes, *problems])}" if footnotes or problems else ""
        raise ValueError(f"{a} and {b} have no outcomes of the same evaluation to compare{reasons}")
    return Comparison(
        a=a,
        b=b,
        accuracies=tuple(accuracies),
        mces=tuple(mces),
        sums=tuple(sums),
        footnotes=tuple(dict.fromkeys(footnotes)),
        problems=tuple(problems),
    )


def _name(key: FacetKey, job: EvaluatedJob) -> str:
    return column_name(dict(key), job.first.protocol.settings) if key else ""


def _accuracy_row(
    place: Place,
    key: FacetKey,
    pair: tuple[EvaluatedJob, EvaluatedJob],
    outcomes: tuple[Outcomes, Outcomes],
    seed: int,
) -> AccuracyRow | None:
    """Numbers under some facets; ``None`` if the outcomes do not amount to what was recorded."""
    facets, found = dict(key), []
    for job, own in zip(pair, outcomes, strict=True):
        measurement = job.records[key].measurement
        assert measurement is not None
        if not own.has(facets):
            return None
        present, hit = own.hits(facets)
        if hit.size != measurement.n or abs(hit.mean() - measurement.value) > 1e-9:
            return None
        found.append((present, hit))
    (images, one), (others, two) = found
    if not np.array_equal(images, others):
        return None
    only_a, only_b = discordant(one, two)
    return AccuracyRow(
        evaluator=place[0],
        benchmark=place[1],
        facets=facets,
        name=_name(key, pair[0]),
        n=len(one),
        a=float(one.mean()),
        b=float(two.mean()),
        difference=(only_a - only_b) / len(one),
        interval=paired_bootstrap(one, two, seed),
        only_a=only_a,
        only_b=only_b,
        p=mcnemar(one, two),
    )


def _mce_row(place: Place, outcomes: tuple[Outcomes, Outcomes], seed: int) -> MceRow | None:
    """Numbers of mCE; ``None`` if either lacks a corruption, or no image has all."""
    wanted = [damage_facets(damage) for damage in DAMAGES]
    if not all(own.has(facets) for facets in wanted for own in outcomes):
        return None
    (rows, one), (others, two) = (own.wrong(wanted) for own in outcomes)
    if not rows.index.equals(others.index) or rows.empty:
        return None
    a, b = (image_mce(dict(zip(DAMAGES, flags, strict=True))) for flags in (one, two))
    values = float(a.mean()), float(b.mean())
    return MceRow(
        benchmark=place[1],
        n=len(rows),
        a=values[0],
        b=values[1],
        difference=values[0] - values[1],
        interval=bootstrap_mean(a - b, seed),
    )


def _accuracy_texts(row: AccuracyRow) -> list[str]:
    counts = [f"{row.only_a:,}", f"{row.only_b:,}"]
    return [row.evaluator, row.benchmark, row.name or DASH, *_number_texts(row), *counts, _p_text(row.p)]


def _sums_texts(row: SumsRow) -> list[str]:
    return [
        row.evaluator,
        row.benchmark,
        row.name or DASH,
        row.metric,
        *_number_texts(row),
        "<0.001" if row.p < 0.001 else _p_text(row.p),
    ]


def _p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _number_texts(row: AccuracyRow | MceRow | SumsRow) -> list[str]:
    low, high = row.interval
    difference = f"{100 * row.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return [f"{row.n:,}", f"{100 * row.a:.1f}", f"{100 * row.b:.1f}", difference]


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return grid([[title, *(plain(text) for text in column)] for title, *column in zip(header, *rows, strict=True)])
