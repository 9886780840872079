"""Tables of "Correlational Image Modeling for Self-Supervised Visual Pre-Training" (Li et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from cim_bench.record import Record, write_atomic
from cim_bench.reports.build import build
from cim_bench.reports.corruption_rows import with_corruption_summaries
from cim_bench.reports.frames import CITATION, published_records, read_runs, records_frame
from cim_bench.reports.notes import DASH
from cim_bench.reports.papers import robustness
from cim_bench.reports.render import to_csv, to_markdown
from cim_bench.reports.table import Column, FilledTable, FlatRecord, RowField, Table

PAPER_BENCHMARK = "imagenet-1k"


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


ARCH = RowField(title="Arch", name="arch", show=_arch, note=_arch_options)

VIT = Table(
    title="Top-1 accuracy of pre-trained ViTs",
    rows=(
        RowField(title="Method", name="name"),
        ARCH,
        RowField(title="Data", name="benchmark", show=_data, with_n=True),
        RowField(title="Pretext", name="pretext"),
        RowField(title="Epochs", name="epochs"),
    ),
    columns=(
        Column(title="k-NN top-1", metric="top1", select={"evaluator": "knn", "variant": "k=20"}),
        Column(
            title="Linear top-1",
            metric="top1",
            select={"evaluator": "linear_probe", "variant": ""},
        ),
        Column(
            title="Fine-tune top-1",
            metric="top1",
            select={"evaluator": "finetune", "variant": ""},
        ),
    ),
)


def render(runs: Path, keys: Collection[str] | None = None) -> str:
    """The tables over all records below `runs` and the paper's numbers, as Markdown.

    Raises:
        FileNotFoundError: If `runs` does not exist.
        ValueError: As in `report`.
    """
    return "\n".join(text for text, _ in _texts(runs, keys).values())


def report(runs: Path, out: Path | None = None, keys: Collection[str] | None = None) -> str:
    """Write each table that has a measured row: as Markdown, and as a CSV with one line a cell and record keys.

    ``vit.md`` and ``vit.csv`` for k-NN, linear and fine-tuned top-1; ``robustness.md`` and ``robustness.csv`` for
    attacks, corruptions and shifted data sets.

    Args:
        runs: A folder that ``cim-bench run`` has written, or one ``records.jsonl``.
        out: Folder of the files; by default the folder of `runs`.
        keys: Job keys to show beside failed jobs; by default every record below `runs`.

    Returns:
        The Markdown of all of them.

    Raises:
        FileNotFoundError: If `runs` does not exist.
        OSError: If `out` cannot be written.
        ValueError: If no measured record there belongs to a table, if the records contradict each other, or if the
            outcomes of a job cannot be read.
    """
    texts = _texts(runs, keys)
    folder = out or (runs if runs.is_dir() else runs.parent)
    for name, (markdown, csv) in texts.items():
        write_atomic(folder / f"{name}.md", markdown)
        write_atomic(folder / f"{name}.csv", csv)
    return "\n".join(markdown for markdown, _ in texts.values())


def _texts(runs: Path, keys: Collection[str] | None) -> dict[str, tuple[str, str]]:
    """Markdown and CSV of each table that has a measured row, by file name."""
    found = [(r, f) for r, f in read_runs(runs) if keys is None or r.key in keys or r.measurement is None]
    # Job folders are named by hash: sorting makes the row order independent of it.
    measured = sorted((record for record, _ in found), key=_order)
    texts = {}
    if vit := _vit(measured):
        texts["vit"] = (to_markdown(vit), to_csv(vit))
    frame = records_frame([*measured, *published_records("robustness")])
    frame = with_corruption_summaries(frame, {record.key: folder for record, folder in found})
    if tables := robustness.fill(frame, ARCH):
        texts["robustness"] = (robustness.markdown(tables), robustness.csv_text(tables))
    if not texts:
        raise ValueError(
            f"no measured k-NN, linear, fine-tune or robustness record in {runs}; run a benchmark there first"
        )
    return texts


def _vit(measured: Sequence[Record]) -> FilledTable | None:
    published = sorted(published_records("imagenet-vit"), key=lambda record: record.subject.arch, reverse=True)
    filled = build(VIT, records_frame([*measured, *published]))
    if not any(row.source == "measured" for row in filled.rows):
        return None
    return replace(filled, table=replace(VIT, caption=_caption(filled)))


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
        lines.append(f"They are on the {sets}, and are **not comparable** with the published ImageNet-1K rows.")
    lines.append(f'Rows marked "reported" are quoted from {CITATION}.')
    return "\n".join(lines)
