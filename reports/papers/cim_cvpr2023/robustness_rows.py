"""Which records the robustness table shows, and which of their knobs are news."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cim_bench.records.facets import CLEAN, as_255
from cim_bench.reports.tables.table import FlatRecord

EVALUATORS = ("adversarial", "corruptions", "shifts")


# Columns of shifted sets, by what is done to their base.
SHIFT_TITLES = {"a": "IN-A", "r": "IN-R", "sketch": "IN-SK", "v2": "IN-V2", "real": "IN-ReaL"}


# Knobs that say what the column and the data's name say already; the path of a folder is told elsewhere.
_NAMED = ("attacks", "clean", "data", "source", "subset")


def with_columns(records: Sequence[FlatRecord]) -> list[dict[str, Any]]:
    """The records that have a column in the robustness table, and failed ones that may belong there.

    A shifted set's clean accuracy on the same classes becomes a warning of its number. Of fine-tunings, those stay
    whose clean top-1 belongs beside the other numbers of their row.
    """
    clean = {
        (record["key"], record["benchmark"]): record
        for record in records
        if record["evaluator"] == "shifts" and (record["facets"] or {}).get("images") == CLEAN
    }
    found = []
    for record in records:
        warnings = record["warnings"]
        if record["evaluator"] == "shifts" and (own := clean.get((record["key"], record["benchmark"]))):
            warnings = (*warnings, f"clean top-1 on the same classes: {100 * own['value']:.1f}, n={own['n']:,}")
        if _has_column(record):
            found.append({**record, "warnings": warnings})
    return _with_one_clean(found)


def _has_column(record: FlatRecord) -> bool:
    evaluator, metric, facets = (record[name] for name in ("evaluator", "metric", "facets"))
    if evaluator == "shifts":
        return not facets and record["shift"] != ""
    if record["status"] == "failed":
        return evaluator in (*EVALUATORS, "finetune")
    if evaluator == "corruptions":
        return bool(metric == "mce")
    if evaluator == "adversarial":
        return bool(metric == "top1" and facets)
    return bool(evaluator == "finetune" and metric == "top1" and not facets)


def _with_one_clean(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of several fine-tunings of one checkpoint, the one whose classifier was put to the test; none, if none was.

    One that is not among the records counts too: another's clean top-1 is not that of the classifier in its row.
    """
    tested = {(*_tuned(record), record["job"]) for record in records if record["evaluator"] != "finetune"}
    tunings: dict[tuple[str, ...], set[str]] = {}
    for record in records:
        job = record["key"] if record["evaluator"] == "finetune" else record["job"]
        if job:
            tunings.setdefault(_tuned(record), set()).add(job)
    return [
        record
        for record in records
        if record["evaluator"] != "finetune"
        or (*_tuned(record), record["key"]) in tested
        or len(tunings.get(_tuned(record), ())) < 2
    ]


def _tuned(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Which backbone was fine-tuned, by row: that of the fine-tuning, or of the classifier that came out."""
    backbone = "checkpoint" if record["evaluator"] == "finetune" else "parent"
    return tuple(record[name] for name in ("source", "name", "base", backbone))


def other_shifts(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Measured or failed shifted sets that have no column."""
    return [r for r in records if r["evaluator"] == "shifts" and not r["facets"] and r["shift"] == ""]


def with_telling_knobs(record: FlatRecord) -> dict[str, Any]:
    """A record whose passed settings, which become footnotes, are only those that its place does not tell."""
    passed = {name: value for name, value in record["passed"].items() if name.split(".")[0] not in _NAMED}
    if record["evaluator"] not in EVALUATORS:
        return dict(record)
    if record["evaluator"] == "adversarial" and passed.get("eps"):
        # Several sizes make several columns: the first is the plain one's, the others are in their titles.
        eps = passed.pop("eps")
        first = eps[0] if isinstance(eps, Sequence) else eps
        if not record["further_eps"] and as_255(first) != "1/255":
            passed["eps"] = first
    return {**record, "passed": passed}
