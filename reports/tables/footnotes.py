"""Footnotes of a number: whatever a reader would otherwise assume wrongly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cim_bench.records.facets import as_255
from cim_bench.reports.tables.table import Column, FlatRecord

DASH = "–"
LINEAGE_FOOTNOTE = "the numbers of this row rest on different checkpoints"


def record_footnotes(column: Column, record: FlatRecord) -> list[str]:
    """Footnotes of one measured or reported number, in the order in which they are printed.

    They say which settings differ from the column's protocol, that the epoch was chosen, that only some of
    the samples were measured, and repeat the record's own warnings.
    """
    # A published number follows its paper's protocol, which the column does not describe.
    expected = column.settings if record["source"] == "measured" else {}
    names = dict.fromkeys([*sorted(record["passed"]), *expected])
    actual = {name: record["passed"].get(name, setting(record, name)) for name in names}
    changed = [
        f"{name}={_shown(record, name, value)}"
        for name, value in actual.items()
        if name not in expected or expected[name] != value
    ]
    footnotes = [f"{record['evaluator']} with {', '.join(changed)}"] if changed else []
    if record["selection"] != "last":
        footnotes.append(f"epoch chosen by {record['selection']}, not the last")
    if record["partial"]:
        footnotes.append("only a part of the samples was measured")
    return [*footnotes, *record["warnings"]]


def pretext_footnote(record: FlatRecord) -> str:
    """Settings of the pretext that differ from the method's own, e.g. ``CIM with max_degrees=0``; empty for none."""
    changed = ", ".join(f"{name}={value}" for name, value in sorted(record["pretext_passed"].items()))
    return f"{record['method']} with {changed}" if changed else ""


def _shown(record: FlatRecord, name: str, value: Any) -> str:
    """A knob's value; sizes of an attack (``eps``, ``alpha`` and their like) in 255ths."""
    if record["evaluator"] == "adversarial" and re.search(r"(^|[._])(eps|epsilon|alpha|step_size)($|[._])", name):
        sizes = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if all(isinstance(size, float | int) and size <= 1 for size in sizes):
            return ", ".join(as_255(size) for size in sizes)
    return str(value)


def setting(record: FlatRecord, name: str) -> Any:
    """A resolved knob by its dotted name; ``None`` if the record has no such knob."""
    value = record["settings"]
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def failure_footnote(record: FlatRecord, *, other: bool = False) -> str:
    """Why there is no number; with `other`, that a further job behind a number failed."""
    return f"{'another job' if other else record['evaluator']} failed: {record['error'] or 'no reason recorded'}"


def one_lineage(records: Sequence[FlatRecord]) -> bool:
    """True if the numbers rest on one checkpoint or on its children (records without a hash do not count)."""
    families = [
        {record["checkpoint"], record["parent"]} - {""}
        for record in records
        if record["status"] == "ok" and record["checkpoint"]
    ]
    return not families or bool(set.intersection(*families))
