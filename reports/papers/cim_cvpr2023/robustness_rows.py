"""Where a record stands in the robustness table: its data set, its column, and which of its knobs are news."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cim_bench.records.facets import as_255
from cim_bench.reports.tables.corruption_summaries import CLEAN, base_of, is_generated
from cim_bench.reports.tables.table import FlatRecord

EVALUATORS = ("adversarial", "corruptions", "shifts")


# Ends of the names of shifted sets, `imagenet-a` or `photos-a`, with their column's title.
SHIFTS = {"a": "IN-A", "r": "IN-R", "sketch": "IN-SK", "v2": "IN-V2", "real": "IN-ReaL"}


# Knobs that say what the column and the data's name say already; the path of a folder is nobody's news.
_NAMED = ("attacks", "clean", "data", "source", "subset")


def placed(records: Sequence[FlatRecord]) -> list[dict[str, Any]]:
    """The records of the robustness table, with their data set as benchmark and their column as variant.

    A shifted set's clean accuracy on the same classes becomes a remark on its number. A failed record has the data
    set and the column that its settings tell, and ``None`` for what they do not. Of fine-tunings, those
    stay whose clean top-1 belongs beside the other numbers of their row.
    """
    clean = {
        (record["key"], record["benchmark"]): record
        for record in records
        if record["evaluator"] == "shifts" and str(record["variant"]).startswith(f"{CLEAN}-")
    }
    found = []
    for record in records:
        benchmark, column = _place(record)
        if column == "":
            continue
        warnings = record["warnings"]
        if record["evaluator"] == "shifts" and (own := clean.get((record["key"], record["benchmark"]))):
            warnings = (*warnings, f"clean top-1 on the same classes: {100 * own['value']:.1f}, n={own['n']:,}")
        found.append({**record, "benchmark": benchmark, "variant": column, "warnings": warnings})
    return _with_one_clean(found)


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
    return tuple(record[name] for name in ("source", "name", "benchmark", backbone))


def other_shifts(records: Sequence[FlatRecord]) -> list[dict[str, Any]]:
    """Measured or failed shifted sets that have no column, under their own names."""
    return [
        {**record, "benchmark": _shifted_set(record)}
        for record in records
        if record["evaluator"] == "shifts" and record["variant"] in ("", None) and _place(record)[1] == ""
    ]


def with_telling_knobs(record: FlatRecord) -> dict[str, Any]:
    """A record whose passed settings, which become footnotes, are only those that its place does not tell."""
    passed = {name: value for name, value in record["passed"].items() if name.split(".")[0] not in _NAMED}
    if record["evaluator"] not in EVALUATORS:
        return dict(record)
    if record["evaluator"] == "adversarial" and passed.get("eps"):
        # Several sizes make several columns: the first is the plain one's, the others are in their titles.
        eps = passed.pop("eps")
        first = eps[0] if isinstance(eps, Sequence) else eps
        if "eps=" not in str(record["variant"]) and as_255(first) != "1/255":
            passed["eps"] = first
    return {**record, "passed": passed}


def _place(record: FlatRecord) -> tuple[str | None, str | None]:
    """Data set and column; the empty column for what the table does not show, ``None`` for what is not known."""
    evaluator, benchmark, variant, metric = (record[k] for k in ("evaluator", "benchmark", "variant", "metric"))
    failed = record["status"] == "failed"
    if evaluator == "shifts" and (failed or variant == "") and (name := _shifted_set(record)):
        base, _, end = name.rpartition("-")
        return ("imagenet-1k" if base == "imagenet" else base), end if base and end in SHIFTS else ""
    if evaluator == "corruptions" and failed and "source" in record["settings"]:
        return None, record["settings"]["source"]
    if evaluator == "corruptions" and metric == "mce":
        return base_of(benchmark), "generated" if is_generated(benchmark) else "released"
    if failed:
        return None, None if evaluator in (*EVALUATORS, "finetune") else ""
    if evaluator == "finetune" and (metric, variant) == ("top1", ""):
        return benchmark, CLEAN
    return benchmark, variant if (evaluator, metric) == ("adversarial", "top1") else ""


def _shifted_set(record: FlatRecord) -> str | None:
    """Name of the set; of a failed record, from its settings."""
    if record["benchmark"] is not None:
        return str(record["benchmark"])
    data = record["settings"].get("data")
    return str(data["name"]) if isinstance(data, Mapping) and "name" in data else None
