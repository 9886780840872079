"""The whole matrix of the CIM paper's slides: each published figure with the measured one beside it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cim_bench.records.facets import CLEAN
from cim_bench.reports.papers.cim_cvpr2023 import robustness, segmentation
from cim_bench.reports.papers.cim_cvpr2023 import tables as cim_cvpr2023
from cim_bench.reports.papers.cim_cvpr2023.matrix_rows import (
    Model,
    on_imagenet,
    tuned_elsewhere,
    with_models,
    with_tunings,
)
from cim_bench.reports.papers.cim_cvpr2023.robustness_rows import EVALUATORS, with_columns, with_telling_knobs
from cim_bench.reports.papers.cim_cvpr2023.tables import PAPER_BENCHMARK
from cim_bench.reports.read.architectures import FAMILIES
from cim_bench.reports.read.frames import FIELDS, INTERVAL, flat_records, records_frame
from cim_bench.reports.read.published import CITATION, published_records
from cim_bench.reports.tables.build import build
from cim_bench.reports.tables.chance import with_chance_footnotes
from cim_bench.reports.tables.footnotes import DASH, pretext_footnote
from cim_bench.reports.tables.table import ANY, Cell, Column, FilledTable, FlatRecord, Row, RowField, Table

_CAPTION = f"""\
One line for each published figure and each checkpoint that was measured for it; {DASH}: not measured, or not published.
Measured: value [95% Wilson interval] in percent on ImageNet-1K val. Published: {CITATION}.
PT and FT epochs: of pre-training and fine-tuning, published/measured."""
_ROBUSTNESS_CAPTION = """\
As above. IN-C: mCE. The slides give no attack settings; measured attacks have eps 1/255, and PGD 5 steps of 0.5/255
from a random start, if no footnote says otherwise. Epochs of published rows are those of the model with the same
clean top-1 in the table above."""
_SEGMENTATION_CAPTION = """\
As above, [95% bootstrap interval over images]. Measured: UPerNet, windows every 341 pixels. Published rows tell neither
epochs nor recipe. A difference is shown for the same set, split and protocol only."""


# An architecture at the published models' input size, and without options.
_PLAIN_ARCH = re.compile(r"[^,@]*@224")


def _measured_arch(record: FlatRecord) -> str:
    """The network, where the published row does not tell it: other sizes and options, or positions of its own."""
    has_positions = record["family"] in ("vit_small", "vit_base") and record["method"].casefold() in ("simmim", "beit")
    own_positions = has_positions or record["arch"].startswith("beit")
    is_plain = record["source"] == "reported" or (_PLAIN_ARCH.fullmatch(record["arch"]) and not own_positions)
    return "" if is_plain else f"measured as {record['arch'].replace(',', ', ')}"


_BUILT = (
    RowField(title="Measured checkpoint", name="name", footnote=_measured_arch),
    RowField(title="Pretext", name="pretext", footnote=pretext_footnote),
)
_TITLES = ("Arch", "Method", "Pretext", "PT epochs", "FT epochs", "Measured checkpoint")
_LABELS = tuple(RowField(title=title, name="name") for title in _TITLES)


def report(runs: Path, out: Path | None = None, keys: Collection[str] | None = None) -> str:
    """Write ``matrix.md`` and ``matrix.csv``, and the tables of `cim_cvpr2023.report` that have a measured row.

    Args:
        runs: A folder that ``cim-bench run`` has written, even if nothing was measured, or one ``records.jsonl``.
        out: Folder of the files; by default the folder of `runs`.
        keys: Job keys to show beside failed jobs; by default every record below `runs`.

    Returns:
        The Markdown of all of them, the matrix first.

    Raises:
        FileNotFoundError: If `runs` does not exist.
        IncompleteError: As in `cim_cvpr2023.report`.
    """
    problems: list[str] = []
    frame = cim_cvpr2023.load_frame(runs, keys, problems)
    matrix = cim_cvpr2023.made_of(
        {"matrix": lambda: (top1_matrix(frame), robustness_matrix(frame), segmentation_matrix(frame))}, problems
    )
    texts = matrix | cim_cvpr2023.tables(frame, problems)
    return cim_cvpr2023.checked(cim_cvpr2023.write_texts(texts, runs, out, problems), problems, runs)


def top1_matrix(frame: pd.DataFrame) -> FilledTable:
    """Fine-tuned top-1, published and measured, and their difference.

    A measured number joins a published one of the same architecture, method and, where published, fine-tuning epochs.
    Other pre-training epochs are a footnote. Several candidates are several lines, and are never averaged.

    Args:
        frame: Measured records, as made by `cim_cvpr2023.load_frame`.

    Raises:
        ValueError: As in `build`.
    """
    column = Column(title="top-1", metric="top1", select={"evaluator": "finetune"})
    clean = replace(column, select={"evaluator": "adversarial"}, facets={"attack": CLEAN})
    measured = on_imagenet(flat_records(frame))
    published = records_frame([*published_records("imagenet-vit"), *published_records("imagenet-cnn")])
    theirs = _built((column,), flat_records(published), "key")
    ours = _built((column,), measured, "key") + _built((clean,), tuned_elsewhere(measured), "key")
    rows = _joined(theirs, ours, same_tuning=True)
    shown = [replace(column, title=f"{who} {column.title}") for who in ("Published", "Measured")]
    table = Table(
        title="The paper's matrix: top-1 after fine-tuning",
        caption=_CAPTION,
        rows=_LABELS,
        columns=(*shown, replace(column, title="Difference", difference=True)),
    )
    rows = tuple(replace(row, cells=(*row.cells, _difference(row.cells[0], row.cells[1]))) for row in rows)
    return with_chance_footnotes(FilledTable(table=table, rows=rows))


def robustness_matrix(frame: pd.DataFrame) -> FilledTable:
    """Attacks, corruptions and shifted data sets, published and measured.

    Lines join as in `top1_matrix`, but other fine-tuning epochs are a footnote, as the published table has none.

    Args:
        frame: Measured records, as made by `cim_cvpr2023.load_frame`.

    Raises:
        ValueError: As in `build`.
    """
    columns = robustness.columns_of(())[:-1]  # clean top-1 is in the first matrix
    published = [record for record in with_columns(with_models()) if record["evaluator"] in EVALUATORS]
    known = with_columns([with_telling_knobs(record) for record in with_tunings(flat_records(frame))])
    measured = [record for record in known if record["evaluator"] in EVALUATORS and record["status"] == "ok"]
    ours = _built(columns, [record for record in measured if record["base"] == PAPER_BENCHMARK], "checkpoint")
    rows = _joined(_built(columns, published, "checkpoint"), ours, same_tuning=False)
    pairs = [replace(column, title=f"{column.title} {who}") for column in columns for who in ("published", "measured")]
    table = Table(
        title="The paper's matrix: robustness of fine-tuned models",
        caption=_ROBUSTNESS_CAPTION,
        rows=_LABELS,
        columns=tuple(pairs),
    )
    return with_chance_footnotes(FilledTable(table=table, rows=rows))


def segmentation_matrix(frame: pd.DataFrame) -> FilledTable:
    """mIoU on ADE20K after fine-tuning with UPerNet, published and measured.

    Their difference is shown where the measured number is of the same set, split and protocol
    (`segmentation.same_protocol`); elsewhere a footnote says in what it differs.

    Args:
        frame: Measured records, as made by `cim_cvpr2023.load_frame`.

    Raises:
        ValueError: As in `build`.
    """
    column = Column(title="mIoU", metric="miou", select={"evaluator": segmentation.UPERNET}, facets={"window": ANY})
    measured = segmentation.published_protocol(flat_records(frame))
    alike = {record["key"] for record in measured if segmentation.same_protocol(record)}
    published = flat_records(records_frame(published_records(segmentation.ADE20K)))
    rows = _joined(_built((column,), published, "key"), _built((column,), measured, "key"), same_tuning=True)
    shown = [replace(column, title=f"{who} {column.title}") for who in ("Published", "Measured")]
    table = Table(
        title="The paper's matrix: semantic segmentation on ADE20K",
        caption=_SEGMENTATION_CAPTION,
        rows=_LABELS,
        columns=(*shown, replace(column, title="Difference", difference=True)),
    )
    rows = tuple(replace(row, cells=(*row.cells, _difference(row.cells[0], row.cells[1], alike))) for row in rows)
    return FilledTable(table=table, rows=rows)


def _built(columns: Sequence[Column], records: Sequence[FlatRecord], apart: str) -> list[tuple[Model, Row]]:
    """Rows of records, each with the model behind it; those that differ in the field `apart` are in different rows."""
    table = Table(title="", rows=_BUILT, columns=tuple(columns), compare=(*Model._fields, apart))
    frame = pd.DataFrame([{INTERVAL: None, **record} for record in records], columns=[*FIELDS, INTERVAL], dtype=object)
    return [(Model(*row.group[:-1]), row) for row in build(table, frame).rows]


def _joined(
    theirs: Sequence[tuple[Model, Row]], ours: Sequence[tuple[Model, Row]], *, same_tuning: bool
) -> tuple[Row, ...]:
    rows: list[Row] = []
    for model, row in sorted(theirs, key=lambda pair: FAMILIES.index(pair[0].family)):
        found = [(own_model, own) for own_model, own in ours if model.fits(own_model, same_tuning=same_tuning)]
        rows += [_line(model, row, *pair) for pair in found] or [_line(model, row)]
    return tuple(rows)


def _line(model: Model, row: Row, own_model: Model | None = None, own: Row | None = None) -> Row:
    """A published row, with the cells of a measured one between its own."""
    differences = model.differences(own_model) if own_model else []
    cells: list[Cell] = []
    for index, cell in enumerate(row.cells):
        measured = own.cells[index] if own else Cell()
        footnotes = (*measured.footnotes, *(differences if measured.value is not None else ()))
        cells += [
            replace(cell, n=None, source="reported"),
            replace(measured, footnotes=footnotes, best=False, source="measured"),
        ]
    name, pretext = row.labels
    epochs = _epochs(model.epochs, own_model.epochs if own_model else None)
    tuned = _epochs(model.finetune_epochs, own_model.finetune_epochs if own_model else None)
    subject, arch_footnote, pretext_settings = (own.labels[0], *own.label_footnotes) if own else (DASH, "", "")
    return Row(
        labels=(model.family, name, pretext, epochs, tuned, subject),
        label_footnotes=("", "", pretext_settings, "", "", arch_footnote),
        source="measured" if own else "reported",
        cells=tuple(cells),
    )


def _epochs(published: float | None, measured: float | None) -> str:
    return "/".join(DASH if value is None else f"{value:g}" for value in (published, measured))


def _difference(published: Cell, measured: Cell, alike: Collection[str] | None = None) -> Cell:
    """Measured minus published; with `alike`, only of a number that rests on records of these keys."""
    comparable = alike is None or set(measured.keys) <= set(alike)
    if published.value is None or measured.value is None or not comparable:
        return Cell(source="measured")
    return Cell(value=measured.value - published.value, keys=measured.keys, source="measured")
