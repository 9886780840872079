"""The robustness table of the CIM paper's slides: attacks, corruptions and shifted data sets beside clean top-1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cim_bench.records.facets import CLEAN, Facets
from cim_bench.reports.papers.cim_cvpr2023.robustness_rows import (
    EVALUATORS,
    SHIFT_TITLES,
    other_shifts,
    with_columns,
    with_telling_knobs,
)
from cim_bench.reports.read.frames import flat_records
from cim_bench.reports.read.published import CITATION
from cim_bench.reports.render.text import to_csv, to_markdown
from cim_bench.reports.tables.build import build
from cim_bench.reports.tables.corruption_summaries import OVER_CORRUPTIONS
from cim_bench.reports.tables.footnotes import DASH, pretext_footnote
from cim_bench.reports.tables.table import ANY, AnyValue, Column, FilledTable, FlatRecord, RowField, Table

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
    return DASH if record["base"] is None else str(record["base"])


def _top1(title: str, evaluator: str, facets: Mapping[str, str | int | float | AnyValue], **select: str) -> Column:
    return Column(title=title, metric="top1", select={"evaluator": evaluator, **select}, facets=facets)


def _mce(title: str, metric: str = "mce", **select: str) -> Column:
    return Column(title=title, metric=metric, select={"evaluator": "corruptions", **select}, percent=True)


_METHOD = RowField(title="Method", name="name", footnote=pretext_footnote)
_SET = RowField(title="Data", name="dataset", with_n=True)
CORRUPTIONS = Table(
    title="Corruptions: mCE, relative mCE and mean top-1",
    caption="""\
The same measurements summed up in three ways, which are not to be taken for one another: mCE and relative mCE (of
the error added to the clean one) are relative to AlexNet's; mean top-1 is over the 75 corrupted sets as they are.""",
    rows=(_METHOD, _SET),
    columns=(
        _mce("mCE"),
        _mce("Relative mCE", "relative_mce"),
        _top1("Mean top-1", "corruptions", OVER_CORRUPTIONS),
    ),
    compare=("dataset", "split"),
)
OTHER_SHIFTS = Table(
    title="Further shifted data sets",
    rows=(_METHOD, _SET),
    columns=(_top1("Top-1", "shifts", {}),),
    compare=("dataset", "split"),
)


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
    main = with_columns(records)
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
    if any(column.select.get("corruption_source") == "generated" for column in columns):
        caption.insert(1, _GENERATED_CAPTION)
    if small := sorted({str(r["base"]) for r in measured if r["base"]} - {"imagenet-1k"}):
        caption.append(f"Rows on {', '.join(small)} are **not comparable** with the published ImageNet-1K rows.")
    return Table(
        title="Robustness of fine-tuned models",
        rows=(_METHOD, arch, RowField(title="Data", name="base", show=_data)),
        columns=columns,
        caption="\n".join(caption),
        compare=("base",),
    )


def columns_of(measured: Sequence[FlatRecord]) -> tuple[Column, ...]:
    """The slides' columns, and further ones for what else was measured.

    Args:
        measured: Records of `with_columns`.
    """
    attacked = [r for r in measured if r["evaluator"] == "adversarial" and "attack" in (r["facets"] or {})]
    sources = {record["corruption_source"] for record in measured if record["evaluator"] == "corruptions"}
    shifted = {record["shift"] for record in measured if record["evaluator"] == "shifts"}
    shifts = [shift for shift in SHIFT_TITLES if shift in _PAPER_SHIFTS or shift in shifted]
    # Classifiers that were fine-tuned elsewhere have no such record: what the attacks start from is their clean top-1.
    is_tuned = any(record["evaluator"] == "finetune" for record in measured)
    from_attacks = not is_tuned and any(record["facets"]["attack"] == CLEAN for record in attacked)
    clean: tuple[str, Facets] = ("adversarial", {"attack": CLEAN}) if from_attacks else ("finetune", {})
    return (
        *(_attack(*which) for which in _attacks(attacked)),
        _mce("IN-C mCE", corruption_source="released"),
        *([_mce("IN-C generated mCE", corruption_source="generated")] if "generated" in sources else []),
        *(_top1(SHIFT_TITLES[shift], "shifts", {}, shift=shift) for shift in shifts),
        _top1("Clean top-1", *clean),
    )


def _attacks(attacked: Sequence[FlatRecord]) -> list[tuple[str, str]]:
    """Attacks with their further sizes (empty for the first of a protocol): the slides' ones, then others."""
    usual = [(name, "") for name in _PAPER_ATTACKS]
    found = {(str(record["facets"]["attack"]), str(record["further_eps"])) for record in attacked}
    return [*usual, *sorted(found - {*usual, (CLEAN, "")})]


def _attack(name: str, further_eps: str) -> Column:
    title = f"{name.upper()} eps={further_eps}" if further_eps else name.upper()
    return _top1(title, "adversarial", {"attack": name, "eps": ANY}, further_eps=further_eps)
