"""Columns in which no model does better than a guess: they say nothing about any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cim_bench.reports.tables.table import Cell, Column, FilledTable


def with_chance_footnotes(filled: FilledTable) -> FilledTable:
    """The table with a footnote on each column where all measured numbers of one data set may be a guess's.

    A number may be one if its 95 % interval holds what a guess has, 1 / classes of a proportion. One that is clearly
    below it, as under attack, is none. Where one number's chance is not known, nothing is said of its data set.
    """
    columns = [
        replace(column, footnotes=(*column.footnotes, *_footnotes(filled, index, column)))
        for index, column in enumerate(filled.table.columns)
    ]
    return replace(filled, table=replace(filled.table, columns=tuple(columns)))


def _footnotes(filled: FilledTable, index: int, column: Column) -> list[str]:
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for row in filled.rows:
        cell = row.cells[index]
        if cell.value is not None and (cell.source or row.source) == "measured":
            groups.setdefault(row.group, []).append(cell)
    found = []
    for group, cells in groups.items():
        if not column.difference and _all_guessed(cells):
            levels = sorted({cell.chance for cell in cells if cell.chance is not None})
            guess = " or ".join(f"{100 * level:.3g} %" if column.in_percent else f"{level:.3g}" for level in levels)
            where = f" on {group[0]}" if group and group[0] else ""
            found.append(f"no number measured{where} can be told from a guess, which has {guess}: they rank nothing")
    return found


def _all_guessed(cells: Sequence[Cell]) -> bool:
    return all(
        cell.chance is not None and cell.low is not None and cell.high is not None
        and cell.low <= cell.chance <= cell.high
        for cell in cells
    )  # fmt: skip
