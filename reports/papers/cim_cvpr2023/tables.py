"""Tables of "Correlational Image Modeling for Self-Supervised Visual Pre-Training" (Li et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from cim_bench.common.errors import IncompleteError, one_sentence
from cim_bench.common.files import write_atomic
from cim_bench.records.record import Record
from cim_bench.records.store import read_runs
from cim_bench.reports.papers.cim_cvpr2023 import robustness, segmentation
from cim_bench.reports.papers.cim_cvpr2023.robustness_rows import EVALUATORS
from cim_bench.reports.read.architectures import is_resnet
from cim_bench.reports.read.frames import FIELDS, INTERVAL, flat_records, records_frame
from cim_bench.reports.read.published import CITATION, published_records
from cim_bench.reports.tables.build import build
from cim_bench.reports.tables.corruption_summaries import with_corruption_summaries
from cim_bench.reports.tables.footnotes import DASH, pretext_footnote
from cim_bench.reports.tables.generic import other_tables
from cim_bench.reports.tables.segmentation_intervals import with_segmentation_intervals
from cim_bench.reports.tables.table import Column, FilledTable, FlatRecord, RowField, Table

PAPER_BENCHMARK = "imagenet-1k"


# Markdown and CSV by file name.
Texts: TypeAlias = dict[str, tuple[str, str]]


def _data(record: FlatRecord) -> str:
    if record["source"] == "reported":
        return "ImageNet-1K, reported"
    if record["benchmark"] is None:
        return DASH
    return str(record["benchmark"]) + ("" if record["split"] == "val" else f" ({record['split']})")


def _arch(record: FlatRecord) -> str:
    """Model name and input size; the options after the first comma are long, and go to `_arch_options`."""
    return str(record["arch"]).split(",", maxsplit=1)[0]


def _arch_options(record: FlatRecord) -> str:
    _, _, options = str(record["arch"]).partition(",")
    return f"with {options.replace(',', ', ')}" if options else ""


ARCH = RowField(title="Arch", name="arch", show=_arch, footnote=_arch_options)
VIT = Table(
    title="Top-1 accuracy of pre-trained ViTs",
    rows=(
        RowField(title="Method", name="name"),
        ARCH,
        RowField(title="Data", name="benchmark", show=_data, with_n=True),
        RowField(title="Pretext", name="pretext", footnote=pretext_footnote),
        RowField(title="Epochs", name="epochs"),
    ),
    columns=(
        Column(title="k-NN top-1", metric="top1", select={"evaluator": "knn"}, facets={"k": 20}),
        Column(title="Linear top-1", metric="top1", select={"evaluator": "linear_probe"}),
        Column(title="Fine-tune top-1", metric="top1", select={"evaluator": "finetune"}),
    ),
)


def vit_table(frame: pd.DataFrame) -> Table:
    """`VIT`; where nobody was measured with its k = 20, with a k-NN column for each other k."""
    knn, *others = VIT.columns
    measured = [facets for facets in frame["facets"][frame["evaluator"] == "knn"] if facets]
    counts = dict.fromkeys(facets["k"] for facets in measured if "k" in facets)
    if knn.facets["k"] in counts or not counts:
        return VIT
    columns = [replace(knn, title=f"{knn.title}, k={k}", facets={"k": k}) for k in counts]
    return replace(VIT, columns=(*columns, *others))


def cnn_table(frame: pd.DataFrame) -> Table:
    """The table of ResNets: like `vit_table`, with a column for each number of epochs that they were fine-tuned for.

    One subject is fine-tuned for 100 epochs and for 300: two numbers of one row. Published ones are among `frame`.
    """
    *frozen, tuned = vit_table(frame).columns
    found = set(frame["finetune_epochs"][frame["evaluator"] == "finetune"])
    columns = [
        replace(
            tuned,
            title=f"Fine-tune top-1, {epochs:g} epochs",
            select={**tuned.select, "finetune_epochs": epochs},
            settings={"training.epochs": epochs},
        )
        for epochs in sorted(found - {None})
    ]
    if None in found:
        columns.append(replace(tuned, select={**tuned.select, "finetune_epochs": None}))
    return replace(
        VIT,
        title="Top-1 accuracy of pre-trained ResNets",
        columns=(*frozen, *columns),
        caption="Published ResNets were fine-tuned by timm's RSB: A3 for 100 epochs, A2 for 300.",
    )


def render(runs: Path, keys: Collection[str] | None = None) -> str:
    """The tables over all records below `runs` and the paper's numbers, as Markdown.

    Raises:
        FileNotFoundError: If `runs` does not exist.
        ValueError: As in `report`.
    """
    problems: list[str] = []
    texts = tables(load_frame(runs, keys, problems), problems)
    return checked("\n".join(text for text, _ in texts.values()), problems, runs)


def report(runs: Path, out: Path | None = None, keys: Collection[str] | None = None) -> str:
    """Write each table that has a measured row: as Markdown, and as a CSV with one line a cell and record keys.

    ``vit.md`` and ``vit.csv`` for k-NN, linear and fine-tuned top-1 of ViTs, ``cnn.md`` and ``cnn.csv`` for those of
    ResNets; ``robustness.md`` and ``robustness.csv`` for attacks, corruptions and shifted data sets;
    ``segmentation.md`` and ``segmentation.csv`` for ADE20K and other sets of its layout; ``others.md`` and
    ``others.csv`` for whatever other evaluators measured.

    Args:
        runs: A folder that ``cim-bench run`` has written, or one ``records.jsonl``.
        out: Folder of the files; by default the folder of `runs`.
        keys: Job keys to show beside failed jobs; by default every record below `runs`.

    Returns:
        The Markdown of all of them.

    Raises:
        FileNotFoundError: If `runs` does not exist.
        ValueError: If there is no measured record.
        IncompleteError: After all else was done, if records are damaged or contradict each other, if the outcomes of a
            job cannot be read, or if `out` cannot be written.
    """
    problems: list[str] = []
    texts = tables(load_frame(runs, keys, problems), problems)
    return checked(write_texts(texts, runs, out, problems), problems, runs)


def checked(text: str, problems: Sequence[str], runs: Path) -> str:
    """The Markdown of all tables, if none is missing.

    Raises:
        ValueError: If there is none.
        IncompleteError: With the text, if there are problems.
    """
    if problems:
        raise IncompleteError(text, problems)
    if not text:
        raise ValueError(f"no measured number in {runs} that a table shows; run a benchmark there first")
    return text


def write_texts(texts: Texts, runs: Path, out: Path | None, problems: list[str]) -> str:
    """Write the files of some tables and return their Markdown; if that fails, `problems` gets a sentence."""
    folder = out or (runs if runs.is_dir() else runs.parent)
    try:
        for name, (markdown, csv) in texts.items():
            write_atomic(folder / f"{name}.md", markdown)
            write_atomic(folder / f"{name}.csv", csv)
    except OSError as error:
        problems.append(one_sentence(error))
    return "\n".join(markdown for markdown, _ in texts.values())


def load_frame(runs: Path, keys: Collection[str] | None, problems: list[str] | None = None) -> pd.DataFrame:
    """The records below `runs` as a frame, with what follows from the outcomes of images; arguments as in `report`.

    That is the rows of corruptions, and the intervals of segmentation.

    Args:
        runs: As in `report`.
        keys: As in `report`.
        problems: Gets a sentence for each damaged file; without it, one is an error.

    Raises:
        FileNotFoundError: If `runs` does not exist.
        ValueError: If a line is not a record, or the outcomes of a job cannot be read.
    """
    found = [(r, f) for r, f in read_runs(runs, problems) if keys is None or r.key in keys or r.measurement is None]
    # Job folders are named by hash: sorting makes the row order independent of it.
    measured = sorted((record for record, _ in found), key=_order)
    folders = {record.key: folder for record, folder in found}
    frame = with_corruption_summaries(records_frame(measured), folders, problems)
    return with_segmentation_intervals(frame, folders, problems)


def tables(measured: pd.DataFrame, problems: list[str]) -> Texts:
    """Each table that has a measured row.

    Args:
        measured: As made by `load_frame`.
        problems: Gets a sentence for each table whose records contradict each other.
    """
    records = flat_records(measured)
    vits = sorted(published_records("imagenet-vit"), key=lambda record: record.subject.arch, reverse=True)
    vit = _with_published([record for record in records if not is_resnet(record["arch"])], vits)
    resnets = [record for record in records if is_resnet(record["arch"])]
    cnn = _with_published(resnets, published_records("imagenet-cnn"))
    attacked = _with_published(records, published_records("robustness"))
    shown = {"knn", "linear_probe", "finetune", *EVALUATORS, *segmentation.PROTOCOLS}
    wanted: dict[str, Callable[[], Sequence[FilledTable]]] = {
        "vit": lambda: _fill(vit_table(vit), vit),
        "cnn": lambda: _fill(cnn_table(cnn), cnn),
        "robustness": lambda: robustness.fill(attacked, ARCH),
        "segmentation": lambda: segmentation.fill(records, ARCH),
        "others": lambda: other_tables(records, VIT.rows, shown=shown),
    }
    return made_of(wanted, problems)


def made_of(wanted: Mapping[str, Callable[[], Sequence[FilledTable]]], problems: list[str]) -> Texts:
    """The texts of the tables that can be made and have rows.

    Args:
        wanted: What fills the tables of each file.
        problems: Gets a sentence for each file that cannot be made.
    """
    texts: Texts = {}
    for name, fill in wanted.items():
        try:
            filled = fill()
        except ValueError as error:
            problems.append(f"{name}.md is not made: {error}")
            continue
        if filled:
            texts[name] = (robustness.markdown(filled), robustness.csv_text(filled))
    return texts


def _with_published(measured: Sequence[FlatRecord], published: Sequence[Record]) -> pd.DataFrame:
    quoted = [{**record, INTERVAL: None} for record in flat_records(records_frame(published))]
    return pd.DataFrame([*measured, *quoted], columns=[*FIELDS, INTERVAL], dtype=object)


def _fill(table: Table, frame: pd.DataFrame) -> tuple[FilledTable, ...]:
    """The filled table with its caption; nothing without a measured row."""
    filled = build(table, frame)
    if not any(row.source == "measured" for row in filled.rows):
        return ()
    return (replace(filled, table=replace(filled.table, caption=_caption(filled))),)


def _order(record: Record) -> tuple[str, str, str, float]:
    benchmark = record.measurement.benchmark if record.measurement else ""
    return benchmark, record.subject.arch, record.subject.name.casefold(), record.subject.epochs or 0.0


def _caption(filled: FilledTable) -> str:
    """What the numbers are, and that small data sets are not comparable with the published ones."""
    found = {row.group[0] for row in filled.rows if row.source == "measured" and row.group[0] is not None}
    small = sorted(found - {PAPER_BENCHMARK})
    lines = ["Measured rows: value [95% Wilson interval] in percent; n: samples measured; bold: the best."]
    if small:
        sets = f"small data set{'s' if len(small) > 1 else ''} {', '.join(small)}"
        which = f"Those on the {sets} are" if PAPER_BENCHMARK in found else f"They are on the {sets}, and are"
        lines.append(f"{which} **not comparable** with the published ImageNet-1K rows.")
    lines.append(f'Rows marked "reported" are quoted from {CITATION}.')
    return "\n".join(filter(None, [*lines, filled.table.caption]))
