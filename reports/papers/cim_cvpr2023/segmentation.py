"""The segmentation table of the CIM paper's slides, with the sets and protocols beyond its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cim_bench.records.facets import column_name
from cim_bench.reports.read.frames import FIELDS, INTERVAL, flat_records, records_frame
from cim_bench.reports.read.published import CITATION, published_records
from cim_bench.reports.tables.build import build
from cim_bench.reports.tables.footnotes import DASH, pretext_footnote, setting
from cim_bench.reports.tables.table import ANY, Column, FilledTable, FlatRecord, RowField, Table

ADE20K = "ade20k"
UPERNET = "segmentation_upernet"
# Evaluators, in the order of their rows.
PROTOCOLS: Mapping[str, str] = {UPERNET: "UPerNet", "segmentation_linear": "linear", "segmentation_knn": "k-NN"}
PUBLISHED_WINDOW = "slide-341"  # of BEiT's and MAE's public configurations
# What a measured number must share with published ones before their difference says anything.
PUBLISHED_SETTINGS: Mapping[str, object] = {
    "training.iterations": 160_000,
    "training.effective_batch": 16,
    "test.crop": 512,
}
VAL_IMAGES = 2_000
_SPLITS = ("val", "validation")
_CAPTION = """\
Measured rows: value [95% bootstrap interval over images] in percent; n: images; bold: the best of one set and variant.
mIoU is the mean over the classes that the truth or a prediction has (mmseg's), "present" over those that the truth has
(detectron2's)."""
_TOLD_ELSEWHERE = ("data.name", "published_curve")  # by a column; by no number
_COLUMNS = {
    "miou": "mIoU",
    "miou_present": "mIoU, present",
    "mean_accuracy": "Mean accuracy",
    "pixel_accuracy": "Pixel accuracy",
}


def fill(measured: Sequence[FlatRecord], arch: RowField) -> tuple[FilledTable, ...]:
    """A table of each protocol of segmentation; one row a model, way of testing and set of settings.

    So the learning rates of a sweep are rows of their own, and none of them stands for the best. The published rows
    are below those of UPerNet.

    Args:
        measured: Measured and failed records.
        arch: How an architecture is shown.

    Returns:
        Nothing for a protocol by which nothing was measured.

    Raises:
        ValueError: As in `build`.
    """
    quoted = [{**record, INTERVAL: None} for record in flat_records(records_frame(published_records(ADE20K)))]
    tables = []
    for evaluator, title in PROTOCOLS.items():
        own = [_told(record) for record in measured if record["evaluator"] == evaluator]
        if any(record["status"] == "ok" for record in own):
            published = [_told(record) for record in quoted if record["evaluator"] == evaluator]
            records = [*sorted(own, key=_order), *published]
            names = [*FIELDS, INTERVAL, "variant", "changed"]
            frame = pd.DataFrame(records, columns=names, dtype=object)
            tables.append(build(_table(title, own, arch, with_published=bool(published)), frame))
    return tuple(tables)


def _table(title: str, own: Sequence[FlatRecord], arch: RowField, *, with_published: bool) -> Table:
    facets = {name: ANY for record in own for name in record["facets"] or ()}
    others = sorted({str(record["benchmark"]) for record in own if record["benchmark"]} - {ADE20K})
    caption = [_CAPTION]
    if with_published:
        caption.append(f'Rows marked "reported" are quoted from {CITATION}.')
        if others:
            caption.append(f"Rows on {', '.join(others)} are **not comparable** with them.")
    return Table(
        title=f"Semantic segmentation: {title}",
        caption="\n".join(caption),
        rows=(
            RowField(title="Method", name="name", footnote=pretext_footnote),
            arch,
            RowField(title="Data", name="benchmark", show=_data, with_n=True),
            RowField(title="Variant", name="evaluator", show=lambda r: r["variant"] or DASH, footnote=_settings),
        ),
        columns=tuple(Column(title=name, metric=metric, select={}, facets=facets) for metric, name in _COLUMNS.items()),
        compare=("benchmark", "split", "variant", "changed"),
    )


def _told(record: FlatRecord) -> dict[str, Any]:
    """A record with its facets and changed settings as texts, which rows differ in; its cells need not repeat them."""
    facets, passed = record["facets"], sorted(record["passed"].items())
    changed = ", ".join(f"{name}={value}" for name, value in passed if name not in _TOLD_ELSEWHERE)
    variant = column_name(facets, record["settings"]) if facets else ""
    return {**record, "variant": variant, "changed": changed, "passed": {}}


def _settings(record: FlatRecord) -> str:
    return f"with {record['changed']}" if record["changed"] else ""


def _data(record: FlatRecord) -> str:
    if record["source"] == "reported":
        return "ADE20K, reported"
    return str(record["benchmark"] or DASH)


def _order(record: FlatRecord) -> tuple[str, str, str]:
    return str(record["benchmark"]), record["variant"], record["changed"]


def published_protocol(records: Sequence[FlatRecord]) -> list[FlatRecord]:
    """What was measured on ADE20K's validation images by UPerNet, in the windows of published rows.

    A setting that is not that of published rows becomes a footnote and the reason why no difference is shown: see
    `same_protocol`.
    """
    return [
        {
            **record,
            "passed": {name: value for name, value in record["passed"].items() if name not in PUBLISHED_SETTINGS},
            "warnings": (*record["warnings"], *_deviations(record)),
        }
        for record in records
        if (record["source"], record["status"], record["benchmark"]) == ("measured", "ok", ADE20K)
        and record["split"] in _SPLITS
        and (record["evaluator"], record["facets"].get("window")) == (UPERNET, PUBLISHED_WINDOW)
    ]


def same_protocol(record: FlatRecord) -> bool:
    """Whether a difference from a published figure may be shown."""
    return not record["partial"] and not _deviations(record)


def _deviations(record: FlatRecord) -> list[str]:
    found = [
        f"{name} {setting(record, name)}, published rows: {value}"
        for name, value in PUBLISHED_SETTINGS.items()
        if setting(record, name) != value
    ]
    if record["n"] != VAL_IMAGES:
        found.append(f"{record['n']:,} images, where the validation split of ADE20K has {VAL_IMAGES:,}")
    return found
