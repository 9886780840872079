"""The published numbers as records."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from decimal import Decimal
from importlib import resources

from cim_bench.records.facets import Facets
from cim_bench.records.measurement import Measurement
from cim_bench.records.record import ProtocolInfo, Provenance, Record, SubjectInfo

CITATION = "Li et al., Correlational Image Modeling for Self-Supervised Visual Pre-Training, CVPR 2023 (slides)"


# Published metric: benchmark, split, number of images in that split (of one corruption), evaluator, metric, facets.
_PUBLISHED: Mapping[str, tuple[str, str, int, str, str, Facets]] = {
    "top1": ("imagenet-1k", "val", 50_000, "finetune", "top1", {}),
    "miou": ("ade20k", "val", 2_000, "segmentation_upernet", "miou", {}),
    "fgsm_top1": ("imagenet-1k", "val", 50_000, "adversarial", "top1", {"attack": "fgsm"}),
    "pgd_top1": ("imagenet-1k", "val", 50_000, "adversarial", "top1", {"attack": "pgd"}),
    "imagenet_c_mce": ("imagenet-c", "test", 50_000, "corruptions", "mce", {}),
    "imagenet_a_top1": ("imagenet-a", "test", 7_500, "shifts", "top1", {}),
    "imagenet_r_top1": ("imagenet-r", "test", 30_000, "shifts", "top1", {}),
    "imagenet_sketch_top1": ("imagenet-sketch", "test", 50_889, "shifts", "top1", {}),
}
_SETTINGS: Mapping[str, Mapping[str, str]] = {"corruptions": {"source": "released"}}  # by evaluator


def published_records(table: str | None = None) -> list[Record]:
    """The paper's numbers as records with ``source="reported"``, in the order of ``published.csv``.

    Percentages become fractions (mCE: a ratio). ``n`` is the size of the official split. The columns without
    a field in a record (table, pretrain_data, tokenizer, finetune_epochs) are in ``protocol.settings``; the
    table's own marks, and pre-training data beyond ImageNet-1K's images, are warnings. The protocol's version
    is 0: it is the paper's.

    Args:
        table: One value of the column ``table``, e.g. ``imagenet-vit``; all of them if ``None``.

    Raises:
        ValueError: If no row belongs to `table`.
    """
    text = resources.files("cim_bench.reports.read").joinpath("published.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    chosen = [_published(row) for row in rows if table in (None, row["table"])]
    if not chosen:
        choices = ", ".join(dict.fromkeys(row["table"] for row in rows))
        raise ValueError(f"no published table {table!r}; choose one of {choices}")
    return chosen


def _published(row: Mapping[str, str]) -> Record:
    benchmark, split, n, evaluator, metric, facets = _PUBLISHED[row["metric"]]
    told = {name: row[name] for name in ("table", "pretrain_data", "tokenizer", "finetune_epochs") if row[name]}
    extra = [f"pre-training data: {row['pretrain_data']}"] if row["pretrain_data"] not in ("", "IN-1K") else []
    epochs = float(row["pretrain_epochs"]) if row["pretrain_epochs"] else None
    return Record(
        key="",
        subject=SubjectInfo(
            name=row["method"],
            method=row["method"],
            arch=row["arch"],
            epochs=epochs,
            pretrain_data=row["pretrain_data"],
        ),
        protocol=ProtocolInfo(evaluator=evaluator, version=0, settings={**told, **_SETTINGS.get(evaluator, {})}),
        provenance=Provenance(source="reported", citation=CITATION),
        measurement=Measurement(
            benchmark=benchmark,
            split=split,
            metric=metric,
            value=float(Decimal(row["value"]) / 100),  # decimal, so that 83.1 becomes exactly 0.831
            n=n,
            facets=facets,
        ),
        warnings=(*extra, *([row["warning"]] if row["warning"] else [])),
    )
