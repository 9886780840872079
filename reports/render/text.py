"""Filled tables as text: Markdown that also reads well in a terminal, and a CSV that traces every cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

from cim_bench.records.measurement import METRICS
from cim_bench.reports.tables.footnotes import DASH
from cim_bench.reports.tables.table import Cell, Column, FilledTable, Row

CSV_HEADER = ("row", "column", "value", "low", "high", "n", "key", "source", "footnotes")
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def to_markdown(filled: FilledTable) -> str:
    """The table as Markdown: title, caption, aligned rows, footnotes.

    Fractions are percentages with one decimal. A measured proportion carries its interval; the best measured
    value of a column is bold. The sample count stands behind the row's label, or in each cell where the cells
    of a row differ in it.
    """
    table = filled.table
    numbers = {text: str(place).translate(_SUPERSCRIPT) for place, text in enumerate(filled.footnotes, start=1)}
    columns = [
        [plain(part.title), *(_label(filled, row, index, numbers) for row in filled.rows)]
        for index, part in enumerate(table.rows)
    ]
    for index, column in enumerate(table.columns):
        parts = [_parts(column, row.cells[index], numbers, with_n=_n_in_cells(filled, row)) for row in filled.rows]
        columns.append([_header(column, numbers), *_aligned(parts)])
    footnotes = [f"- {number} {plain(text)}" for text, number in numbers.items()]
    blocks = [f"### {table.title}", table.caption, grid(columns), "\n".join(footnotes)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def grid(columns: Sequence[Sequence[str]]) -> str:
    """Columns of text, each with its header first, as a Markdown table padded to equal widths."""
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in zip(*columns, strict=True)
    ]
    lines.insert(1, "|" + "|".join(":" + "-" * (width + 1) for width in widths) + "|")
    return "\n".join(lines)


def to_csv(filled: FilledTable) -> str:
    """One line a cell, with raw values at full precision and the keys of the records behind it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for row in filled.rows:
        for column, cell in zip(filled.table.columns, row.cells, strict=True):
            numbers = (cell.value, cell.low, cell.high, cell.n)
            source = cell.source or row.source
            of_column = column.footnotes if source == "measured" and cell.value is not None else ()
            keys, footnotes = " ".join(cell.keys), "; ".join([*cell.footnotes, *of_column])
            writer.writerow([row.name, column.title, *numbers, keys, source, footnotes])
    return file.getvalue()


def plain(text: str) -> str:
    """Text that cannot break out of its table cell or line."""
    return " ".join(text.split()).replace("|", "\\|")


def _header(column: Column, numbers: Mapping[str, str]) -> str:
    metric = METRICS[column.metric]
    unit = "" if not column.in_percent else " (points)" if column.difference else " (%)"
    marks = "".join(f" {numbers[text]}" for text in column.footnotes)
    return f"{plain(column.title)}{unit} {'↑' if metric.higher_is_better else '↓'}{marks}"


def _number(column: Column, value: float) -> str:
    sign = "+z" if column.difference else ""
    return f"{100 * value:{sign}.1f}" if column.in_percent else f"{value:{sign}.3f}"


def _counts(row: Row) -> set[int]:
    return {cell.n for cell in row.cells if cell.n is not None}


def _n_in_cells(filled: FilledTable, row: Row) -> bool:
    has_place = any(part.with_n for part in filled.table.rows)
    return row.source == "measured" and (not has_place or len(_counts(row)) > 1)


def _label(filled: FilledTable, row: Row, index: int, numbers: Mapping[str, str]) -> str:
    text, counts = plain(row.labels[index]), _counts(row)
    if row.label_footnotes and row.label_footnotes[index]:
        text += f" {numbers[row.label_footnotes[index]]}"
    if filled.table.rows[index].with_n and row.source == "measured" and len(counts) == 1:
        return f"{text}, n={counts.pop():,}"
    return text


def _parts(column: Column, cell: Cell, numbers: Mapping[str, str], *, with_n: bool) -> tuple[str, str, str, str]:
    """Value, interval, count and footnote marks of a cell."""
    value = DASH if cell.value is None else _number(column, cell.value)
    interval = ""
    if cell.low is not None and cell.high is not None:
        interval = f"[{_number(column, cell.low)}, {_number(column, cell.high)}]"
    count = f"n={cell.n:,}" if with_n and cell.n is not None else ""
    marks = " ".join(numbers[text] for text in cell.footnotes)
    return f"**{value}**" if cell.best else value, interval, count, marks


def _aligned(cells: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Cells of one column with their values, intervals, counts and marks below each other."""
    bold = any(value.startswith("**") for value, *_ in cells)
    values = [f"  {value}  " if bold and not value.startswith("**") else value for value, *_ in cells]
    _, intervals, counts, marks = (list(part) for part in zip(*cells, strict=True)) if cells else ([], [], [], [])
    parts: list[tuple[list[str], Callable[[str, int], str]]] = [
        (values, str.rjust),
        (intervals, str.rjust),
        (counts, str.rjust),
        (marks, str.ljust),
    ]
    padded = []
    for texts, pad in parts:
        width = max(map(len, texts), default=0)
        if width:
            padded.append([pad(text, width) for text in texts])
    return [" ".join(line) for line in zip(*padded, strict=True)]
