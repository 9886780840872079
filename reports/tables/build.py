"""Fill a declared table from a frame of records, refusing what would make a cell ambiguous."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from cim_bench.records.facets import facet_key
from cim_bench.records.measurement import METRICS
from cim_bench.reports.read.frames import FIELDS, INTERVAL, MEASUREMENT_FIELDS, PLACE_FIELDS, flat_records
from cim_bench.reports.stats.intervals import best_of, wilson_interval
from cim_bench.reports.tables.chance import with_chance_footnotes
from cim_bench.reports.tables.footnotes import (
    DASH,
    LINEAGE_FOOTNOTE,
    failure_footnote,
    one_lineage,
    record_footnotes,
)
from cim_bench.reports.tables.table import Cell, Column, FilledTable, FlatRecord, Row, RowField, Table

# Metrics that are a share of independent samples, so that a binomial interval applies.
PROPORTIONS = ("top1", "top5")


# Records alike in these, in their facets and in their row are copies of one number; earlier versions told no chance.
_IDENTITY = ("key", *(name for name in MEASUREMENT_FIELDS if name not in ("facets", "chance")), "citation")


# What a failed record may not know.
_UNKNOWN = (*MEASUREMENT_FIELDS, *PLACE_FIELDS)


@dataclass
class _Group:
    """The records of one row, by column; `first` gives the labels."""

    first: FlatRecord
    matches: list[list[FlatRecord]]


def build(table: Table, frame: pd.DataFrame) -> FilledTable:
    """Fill `table` from a frame made by `records_frame`.

    A further column `INTERVAL` may hold the bounds of derived numbers; where it is not ``None`` it stands instead of
    the Wilson interval. A derived record without a value is a gap, and its warnings say why.

    A record that no column selects is left out. A failed record has measured nothing, and as a rule no benchmark:
    it belongs to every row that agrees with it in what it has, and has one of its own if there is none.

    Raises:
        ValueError: If two different records match one cell, or if measured records of one column come from
            different evaluators or versions.
    """
    records: list[FlatRecord] = [*flat_records(frame)]
    groups: dict[tuple[Hashable, ...], _Group] = {}
    # Failed records come last, when the rows that they may belong to exist.
    for record in sorted(records, key=lambda record: bool(record["status"] == "failed")):
        hits = [index for index, column in enumerate(table.columns) if _matches(column, record)]
        for key in _rows_of(table, record, groups) if hits else ():
            group = groups.setdefault(key, _Group(record, [[] for _ in table.columns]))
            for index in hits:
                group.matches[index].append(record)
    for index, column in enumerate(table.columns):
        _check_protocol(column, [record for group in groups.values() for record in group.matches[index]])
    rows = [_row(table, group) for group in groups.values()]
    rows.sort(key=lambda row: row.source)  # "measured" before "reported"; stable
    return with_chance_footnotes(FilledTable(table=table, rows=_mark_best(table, rows)))


def _matches(column: Column, record: FlatRecord) -> bool:
    wanted = {"metric": column.metric, **column.select}
    failed = record["status"] == "failed"
    if record["facets"] is not None and not column.fits(record["facets"]):
        return False
    return all(record[name] == value or (failed and record[name] is None) for name, value in wanted.items())


def _rows_of(
    table: Table, record: FlatRecord, groups: dict[tuple[Hashable, ...], _Group]
) -> list[tuple[Hashable, ...]]:
    names = ("source", *(part.name for part in table.rows), *table.compare)
    own = tuple(record[name] for name in names)
    if record["status"] != "failed":
        return [own]
    known = [index for index, name in enumerate(names) if name not in _UNKNOWN or own[index] is not None]
    return [key for key in groups if all(key[index] == own[index] for index in known)] or [own]


def _check_protocol(column: Column, records: Sequence[FlatRecord]) -> None:
    """Numbers of different protocol versions never share a column."""
    first: dict[tuple[str, int], FlatRecord] = {}
    for record in records:
        if record["source"] == "measured" and record["status"] == "ok":
            first.setdefault((record["evaluator"], record["version"]), record)
    if len(first) > 1:
        found = ", ".join(
            f"{evaluator} v{version} (record {record['key']})" for (evaluator, version), record in first.items()
        )
        raise ValueError(f"column {column.title!r} mixes protocols: {found}; evaluate again with one of them")


def _row(table: Table, group: _Group) -> Row:
    labels = tuple(_label(part, group.first) for part in table.rows)
    label_footnotes = tuple(part.footnote(group.first) if part.footnote else "" for part in table.rows)
    where = " / ".join(labels)
    pairs = zip(table.columns, group.matches, strict=True)
    cells = [_cell(column, where, records) for column, records in pairs]
    if not one_lineage([record for records in group.matches for record in records]):
        cells = [
            cell if cell.value is None else replace(cell, footnotes=(*cell.footnotes, LINEAGE_FOOTNOTE))
            for cell in cells
        ]
    compared = tuple(group.first[name] for name in table.compare)
    return Row(
        labels=labels,
        label_footnotes=label_footnotes,
        source=group.first["source"],
        cells=tuple(cells),
        group=compared,
    )


def _label(part: RowField, record: FlatRecord) -> str:
    if part.show:
        return part.show(record)
    value = record[part.name]
    return DASH if value is None or value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def _cell(column: Column, where: str, records: Sequence[FlatRecord]) -> Cell:
    measured = {_identity(record): record for record in records if record["status"] == "ok"}
    if len(measured) > 1:
        one, two = list(measured.values())[:2]
        differing = ", ".join(name for name in FIELDS if one[name] != two[name]) or "nothing"
        raise ValueError(
            f"two records for row {where!r}, column {column.title!r}: {one['key']!r} and {two['key']!r} "
            f"(they differ in {differing}); give a folder that holds only one of them"
        )
    keys = tuple(dict.fromkeys(str(record["key"]) for record in [*measured.values(), *records] if record["key"]))
    failed = [record for record in records if record["status"] == "failed"]
    if not measured:
        return Cell(keys=keys, footnotes=tuple(dict.fromkeys(failure_footnote(record) for record in failed)))
    (record,) = measured.values()
    others = [failure_footnote(other, other=True) for other in failed if other["key"] != record["key"]]
    footnotes = tuple(dict.fromkeys([*record_footnotes(column, record), *others]))
    if record["value"] is None:
        return Cell(keys=keys, footnotes=footnotes)
    value, n = float(record["value"]), int(record["n"])
    interval: tuple[float | None, float | None] = record.get(INTERVAL) or (None, None)
    if record.get(INTERVAL) is None and record["source"] == "measured" and column.metric in PROPORTIONS:
        interval = wilson_interval(value, n)
    low, high = interval
    return Cell(value=value, low=low, high=high, n=n, keys=keys, footnotes=footnotes, chance=record["chance"])


def _identity(record: FlatRecord) -> tuple[Hashable, ...]:
    return (facet_key(record["facets"]), *(record[name] for name in _IDENTITY))


def _mark_best(table: Table, rows: Sequence[Row]) -> tuple[Row, ...]:
    marked = [list(row.cells) for row in rows]
    for index, column in enumerate(table.columns):
        values = [row.cells[index].value if row.source == "measured" else None for row in rows]
        flags = best_of(values, [row.group for row in rows], METRICS[column.metric].higher_is_better)
        for cells, flag in zip(marked, flags, strict=True):
            cells[index] = replace(cells[index], best=flag)
    return tuple(replace(row, cells=tuple(cells)) for row, cells in zip(rows, marked, strict=True))
