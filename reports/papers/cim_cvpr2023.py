"""Tables of "Correlational Image Modeling for Self-Supervised Visual Pre-Training" (Li et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cim_bench.record import Record, read_records, write_atomic
from cim_bench.reports.build import build
from cim_bench.reports.frames import CITATION, published_records, records_frame
from cim_bench.reports.notes import DASH
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


VIT = Table(
    title="Top-1 accuracy of pre-trained ViTs",
    rows=(
        RowField(title="Method", name="name"),
        RowField(title="Arch", name="arch", show=_arch, note=_arch_options),
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


def render(runs: Path) -> str:
    """The ViT table over all records below `runs` and the paper's numbers, as Markdown.

    Raises:
        FileNotFoundError: If `runs` does not exist.
        ValueError: If no measured record there belongs to the table, or if its records contradict each other.
    """
    return to_markdown(_fill(runs))


def report(runs: Path, out: Path | None = None, keys: Collection[str] | None = None) -> str:
    """Write the ViT table to ``vit.md`` and, one line a cell with record keys, to ``vit.csv``.

    Args:
        runs: A folder that ``cim-bench run`` has written, or one ``records.jsonl``.
        out: Folder of both files; by default the folder of `runs`.
        keys: Job keys to show beside failed jobs; by default every record below `runs`.

    Returns:
        The Markdown.

    Raises:
        FileNotFoundError: If `runs` does not exist.
        OSError: If `out` cannot be written.
        ValueError: As in `render`.
    """
    filled = _fill(runs, keys)
    folder = out or (runs if runs.is_dir() else runs.parent)
    text = to_markdown(filled)
    write_atomic(folder / "vit.md", text)
    write_atomic(folder / "vit.csv", to_csv(filled))
    return text


def _fill(runs: Path, keys: Collection[str] | None = None) -> FilledTable:
    # Job folders are named by hash: sorting makes the row order independent of it.
    found = [r for r in read_records(runs) if keys is None or r.key in keys or r.measurement is None]
    measured = sorted(found, key=_order)
    published = sorted(published_records("imagenet-vit"), key=lambda record: record.subject.arch, reverse=True)
    frame = records_frame([*measured, *published])
    filled = build(replace(VIT, caption=_caption(frame)), frame)
    if not any(row.source == "measured" for row in filled.rows):
        raise ValueError(f"no measured k-NN, linear or fine-tune record in {runs}; run a benchmark there first")
    return filled


def _order(record: Record) -> tuple[str, str, str, float]:
    benchmark = record.measurement.benchmark if record.measurement else ""
    return benchmark, record.subject.arch, record.subject.name.casefold(), record.subject.epochs or 0.0


def _caption(frame: pd.DataFrame) -> str:
    """What the numbers are, and that small data sets are not comparable with the published ones."""
    found = frame[(frame["source"] == "measured") & (frame["status"] == "ok")]["benchmark"]
    small = sorted(set(found) - {PAPER_BENCHMARK})
    lines = ["Measured rows: value [95% Wilson interval] in percent; n: samples measured; bold: the best."]
    if small:
        sets = f"small data set{'s' if len(small) > 1 else ''} {', '.join(small)}"
        lines.append(f"They are on the {sets}, and are **not comparable** with the published ImageNet-1K rows.")
    lines.append(f'Rows marked "reported" are quoted from {CITATION}.')
    return "\n".join(lines)
