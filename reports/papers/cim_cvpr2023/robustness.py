"""The robustness table of the CIM paper's slides: attacks, corruptions and shifted data sets beside clean top-1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from cim_bench.reports.papers.cim_cvpr2023.robustness_rows import (
    EVALUATORS,
    SHIFTS,
    other_shifts,
    placed,
    with_telling_knobs,
)
from cim_bench.reports.read.frames import flat_records
from cim_bench.reports.read.published import CITATION
from cim_bench.reports.render.text import to_csv, to_markdown
from cim_bench.reports.tables.build import build
from cim_bench.reports.tables.corruption_summaries import CLEAN
from cim_bench.reports.tables.footnotes import DASH, pretext_note
from cim_bench.reports.tables.table import Column, FilledTable, FlatRecord, RowField, Table

_PAPER_SHIFTS = ("a", "r", "sketch")
_PAPER_ATTACKS = ("fgsm", "pgd")
_CAPTION = """\
Measured rows: value [95% interval] in percent, with the number of images; bold: the best of one data set.
The columns of a row come from the sets made for its data: attacks and clean top-1 from its own images, IN-A from
imagenet-a or photos-a, and so on. IN-C: mCE, the mean over 15 corruptions of the error relative to AlexNet's.
Attacks have eps 1/255, and PGD 5 steps of 0.5/255 from a random start, if no footnote or title says otherwise."""
_GENERATED_CAPTION = (
    "IN-C generated: corruptions generated on the fly, not the released files; **not comparable** with IN-C."
)


def _data(record: FlatRecord) -> str:
    if record["source"] == "reported":
        return "ImageNet-1K, reported"
    return DASH if record["benchmark"] is None else str(record["benchmark"])


def _top1(title: str, evaluator: str, variant: str) -> Column:
    return Column(title=title, metric="top1", select={"evaluator": evaluator, "variant": variant})


def _mce(title: str, variant: str, metric: str = "mce") -> Column:
    return Column(title=title, metric=metric, select={"evaluator": "corruptions", "variant": variant}, percent=True)


_METHOD = RowField(title="Method", name="name", note=pretext_note)
_SET = RowField(title="Data", name="benchmark", with_n=True)
CORRUPTIONS = Table(
    title="Corruptions: mCE, relative mCE and mean top-1",
    caption="""\
The same measurements summed up in three ways, which are not to be taken for one another: mCE and relative mCE (of
the error added to the clean one) are relative to AlexNet's; mean top-1 is over the 75 corrupted sets as they are.""",
    rows=(_METHOD, _SET),
    columns=(_mce("mCE", ""), _mce("Relative mCE", "", "relative_mce"), _top1("Mean top-1", "corruptions", "mean")),
)
OTHER_SHIFTS = Table(title="Further shifted data sets", rows=(_METHOD, _SET), columns=(_top1("Top-1", "shifts", ""),))


def fill(frame: pd.DataFrame, arch: RowField) -> tuple[FilledTable, ...]:
    """The robustness table, and below it what was measured but has no column there.

    These are the other summaries of corruptions, and shifted sets whose names tell no data set that they belong to.

    Args:
        frame: Measured and published records with the rows of `with_corruption_summaries`.
        arch: How an architecture is shown.

    Returns:
        Nothing, if no attack, corruption or shift was measured or failed.

    Raises:
        ValueError: As in `build`.
    """
    records = [with_telling_knobs(record) for record in flat_records(frame)]
    measured = [record for record in records if record["source"] == "measured"]
    main = placed(records)
    corrupted = [r for r in measured if r["evaluator"] == "corruptions" and r["status"] == "ok"]
    further = [(CORRUPTIONS, corrupted), (OTHER_SHIFTS, other_shifts(measured))]
    wanted = [(replace(table, rows=(_METHOD, arch, _SET)), rows) for table, rows in further if rows]
    if any(record["evaluator"] in EVALUATORS for record in main if record["source"] == "measured"):
        wanted.insert(0, (_robustness(main, arch), main))
    columns = list(frame.columns)
    return tuple(build(table, pd.DataFrame(rows, columns=columns, dtype=object)) for table, rows in wanted)


def markdown(tables: Sequence[FilledTable]) -> str:
    """All tables as Markdown, one below the other."""
    return "\n".join(to_markdown(table) for table in tables)


def csv_text(tables: Sequence[FilledTable]) -> str:
    """All tables as one CSV under one header."""
    header, *lines = to_csv(tables[0]).splitlines(keepends=True)
    for table in tables[1:]:
        lines += to_csv(table).splitlines(keepends=True)[1:]
    return header + "".join(lines)


def _robustness(records: Sequence[FlatRecord], arch: RowField) -> Table:
    measured = [record for record in records if record["source"] == "measured"]
    columns = columns_of(measured)
    caption = [_CAPTION, f'Rows marked "reported" are quoted from {CITATION}; they give no attack settings.']
    if any(column.select["variant"] == "generated" for column in columns):
        caption.insert(1, _GENERATED_CAPTION)
    if small := sorted({str(r["benchmark"]) for r in measured if r["benchmark"]} - {"imagenet-1k"}):
        caption.append(f"Rows on {', '.join(small)} are **not comparable** with the published ImageNet-1K rows.")
    return Table(
        title="Robustness of fine-tuned models",
        rows=(_METHOD, arch, RowField(title="Data", name="benchmark", show=_data)),
        columns=columns,
        caption="\n".join(caption),
        compare=("benchmark",),
    )


def columns_of(measured: Sequence[FlatRecord]) -> tuple[Column, ...]:
    """The slides' columns, and further ones for what else was measured."""
    found = {(record["evaluator"], record["variant"]) for record in measured}
    attacks = sorted({str(variant) for evaluator, variant in found if evaluator == "adversarial" and variant})
    more = [variant for variant in attacks if variant not in (CLEAN, *_PAPER_ATTACKS)]
    shifts = [name for name in SHIFTS if name in _PAPER_SHIFTS or ("shifts", name) in found]
    # Classifiers that were fine-tuned elsewhere have no such record: what the attacks start from is their clean top-1.
    tuned = any(evaluator == "finetune" for evaluator, _ in found) or CLEAN not in attacks
    return (
        *(_top1(_attack(variant), "adversarial", variant) for variant in (*_PAPER_ATTACKS, *more)),
        _mce("IN-C mCE", "released"),
        *([_mce("IN-C generated mCE", "generated")] if ("corruptions", "generated") in found else []),
        *(_top1(SHIFTS[name], "shifts", name) for name in shifts),
        _top1("Clean top-1", "finetune" if tuned else "adversarial", CLEAN),
    )


def _attack(variant: str) -> str:
    name, _, settings = variant.partition(" ")
    return f"{name.upper()} {settings}".strip()
