"""Tables of what no declared table shows: evaluators of other packages, and those that the paper does not have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from cim_bench.records.facets import column_name, facet_key
from cim_bench.reports.tables.build import build
from cim_bench.reports.tables.table import Column, FilledTable, FlatRecord, RowField, Table


def other_tables(
    records: Sequence[FlatRecord], rows: tuple[RowField, ...], shown: Collection[str]
) -> list[FilledTable]:
    """One table for each evaluator and metric: a column for each set of facets and, if there are several, of settings.

    Args:
        records: Measured and failed ones; what failed for all subjects has no table.
        rows: The leading columns.
        shown: Evaluators that have a place elsewhere.

    Raises:
        ValueError: As in `build`.
    """
    found: dict[tuple[str, str], list[FlatRecord]] = {}
    for record in records:
        if record["evaluator"] not in shown and record["status"] == "ok":
            found.setdefault((record["evaluator"], record["metric"]), []).append(record)
    failed = [record for record in records if record["status"] == "failed"]
    return [_table(*place, measured, failed, rows) for place, measured in found.items()]


def _table(
    evaluator: str,
    metric: str,
    measured: Sequence[FlatRecord],
    failed: Sequence[FlatRecord],
    rows: tuple[RowField, ...],
) -> FilledTable:
    columns = {(facet_key(r["facets"]), str(sorted(r["passed"].items()))): r for r in measured}
    settings = len({passed for _, passed in columns}) > 1
    declared = tuple(_column(record, settings=settings) for record in columns.values())
    table = Table(title=f"{evaluator}: {metric}", rows=rows, columns=declared)
    own: list[Any] = [*measured, *(record for record in failed if record["evaluator"] == evaluator)]
    return build(table, pd.DataFrame(own, dtype=object))


def _column(record: FlatRecord, *, settings: bool) -> Column:
    """The column of a record, which its settings tell apart from others if several were measured."""
    passed = record["passed"]
    told = ", ".join(f"{name}={value}" for name, value in sorted(passed.items())) if settings else ""
    name = column_name(record["facets"], record["settings"]) if record["facets"] else record["metric"]
    return Column(
        title=", ".join(filter(None, [name, told])),
        metric=record["metric"],
        select={name: record[name] for name in ("evaluator", "passed")},
        facets=record["facets"],
        settings=passed if settings else {},
    )
