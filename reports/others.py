"""Tables of what no declared table shows: evaluators of other packages, and those that the paper does not have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from cim_bench.reports.build import build
from cim_bench.reports.table import Column, FilledTable, FlatRecord, RowField, Table


def other_tables(
    records: Sequence[FlatRecord], rows: tuple[RowField, ...], shown: Collection[str]
) -> list[FilledTable]:
    """One table for each evaluator and metric, with a column for each variant.

    Args:
        records: Measured and failed ones.
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
    variants = dict.fromkeys(str(record["variant"]) for record in measured)
    columns = tuple(_column(evaluator, metric, variant) for variant in variants)
    table = Table(title=f"{evaluator}: {metric}", rows=rows, columns=columns)
    own: list[Any] = [*measured, *(record for record in failed if record["evaluator"] == evaluator)]
    return build(table, pd.DataFrame(own, dtype=object))


def _column(evaluator: str, metric: str, variant: str) -> Column:
    return Column(title=variant or metric, metric=metric, select={"evaluator": evaluator, "variant": variant})
