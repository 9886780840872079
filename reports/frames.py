"""Records as a data frame with one row a record, and the published numbers as records."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from cim_bench.record import (
    RECORDS_FILE,
    Measurement,
    ProtocolInfo,
    Provenance,
    Record,
    SubjectInfo,
    read_records,
)
from cim_bench.reports.archs import family

CITATION = "Li et al., Correlational Image Modeling for Self-Supervised Visual Pre-Training, CVPR 2023 (slides)"

# What a failed record lacks, since its job measured nothing.
MEASUREMENT_FIELDS = ("benchmark", "split", "metric", "variant", "value", "n")

# Bounds of a derived number as (low, high), either of which may be None: a column that only derived rows bring.
INTERVAL = "interval"

FIELDS = (
    "key",
    "name",
    "method",
    "pretext",
    "pretext_passed",
    "arch",
    "family",
    "epochs",
    "checkpoint",
    "parent",
    "pretrain_data",
    "job",
    "evaluator",
    "version",
    "settings",
    "passed",
    "selection",
    "partial",
    "finetune_epochs",
    *MEASUREMENT_FIELDS,
    "source",
    "citation",
    "status",
    "error",
    "seed",
    "commit",
    "dirty",
    "packages",
    "device",
    "micro_batch",
    "duration_s",
    "data",
    "time",
    "warnings",
)

# The family of a method, by its name in lower case; the published ones as the paper sorts them.
PRETEXTS: Mapping[str, str] = {
    "cim": "CIM",
    "mae": "MIM",
    "simmim": "MIM",
    "beit": "MIM",
    "mp3": "Jigsaw",
    "dino": "MV-SSL",
    "dinov2": "MV-SSL + MIM",
    "moco v2": "MV-SSL",
    "moco v3": "MV-SSL",
    "simsiam": "MV-SSL",
    "simclr": "MV-SSL",
    "byol": "MV-SSL",
    "swav": "MV-SSL",
    "random": "random init",
    "scratch": "random init",
    "supervised": "supervised",
    "timm": "unknown",
    "rsb a2": "supervised",
    "rsb a3": "supervised",
}

# Published metric: benchmark, split, number of images in that split (of one corruption), evaluator, metric, variant.
_PUBLISHED: Mapping[str, tuple[str, str, int, str, str, str]] = {
    "top1": ("imagenet-1k", "val", 50_000, "finetune", "top1", ""),
    "miou": ("ade20k", "val", 2_000, "segmentation", "miou", ""),
    "fgsm_top1": ("imagenet-1k", "val", 50_000, "adversarial", "top1", "fgsm"),
    "pgd_top1": ("imagenet-1k", "val", 50_000, "adversarial", "top1", "pgd"),
    "imagenet_c_mce": ("imagenet-c", "test", 50_000, "corruptions", "mce", ""),
    "imagenet_a_top1": ("imagenet-a", "test", 7_500, "shifts", "top1", ""),
    "imagenet_r_top1": ("imagenet-r", "test", 30_000, "shifts", "top1", ""),
    "imagenet_sketch_top1": ("imagenet-sketch", "test", 50_889, "shifts", "top1", ""),
}


PARTIAL = "partial"


def read_runs(path: Path) -> list[tuple[Record, Path]]:
    """Records of one file, or of every job below a folder in sorted order, each with its job's folder.

    An unfinished job keeps what it has in ``partial/records.jsonl``. Once ``records.jsonl`` is beside that folder,
    the job is complete and the partial records are left out.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: Naming file and line, if a line is not a record.
    """
    found: list[tuple[Record, Path]] = []
    for file in sorted(path.rglob(RECORDS_FILE)) if path.is_dir() else [path]:
        folder = file.parent
        if folder.name == PARTIAL:
            folder = folder.parent
            if (folder / RECORDS_FILE).exists():
                continue
        found.extend((record, folder) for record in read_records(file))
    return found


def records_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Flatten records to one row each, with the columns `FIELDS`, in the given order.

    Values keep their Python types (``epochs`` may be ``None``, ``passed`` is a dict). A failed record has
    ``None`` in `MEASUREMENT_FIELDS`. Four fields follow from others: ``pretext`` is looked up in `PRETEXTS`, empty
    for an unlisted method; ``family`` is that of ``arch``; ``finetune_epochs`` are those of a fine-tuning, measured
    or published, else ``None``; ``pretext_passed`` is the subject's ``passed``.
    """
    return pd.DataFrame([_flatten(record) for record in records], columns=list(FIELDS), dtype=object)


def flat_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dicts; much faster than pandas' own for columns of Python objects."""
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*(frame[name].tolist() for name in names), strict=True)]


def _flatten(record: Record) -> dict[str, Any]:
    measurement = vars(record.measurement) if record.measurement else dict.fromkeys(MEASUREMENT_FIELDS)
    return {
        "key": record.key,
        **vars(record.subject),
        "pretext": PRETEXTS.get(record.subject.method.casefold(), ""),
        "pretext_passed": record.subject.passed,
        "family": family(record.subject.arch),
        **vars(record.protocol),
        "finetune_epochs": _finetune_epochs(record.protocol),
        **measurement,
        **vars(record.provenance),
        "warnings": record.warnings,
    }


def _finetune_epochs(protocol: ProtocolInfo) -> float | None:
    training = protocol.settings.get("training")
    own = training.get("epochs") if protocol.evaluator == "finetune" and isinstance(training, Mapping) else None
    epochs = protocol.settings.get("finetune_epochs", own)
    return None if epochs is None else float(epochs)


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
    text = resources.files("cim_bench.reports").joinpath("published.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    chosen = [_published(row) for row in rows if table in (None, row["table"])]
    if not chosen:
        choices = ", ".join(dict.fromkeys(row["table"] for row in rows))
        raise ValueError(f"no published table {table!r}; choose one of {choices}")
    return chosen


def _published(row: Mapping[str, str]) -> Record:
    benchmark, split, n, evaluator, metric, variant = _PUBLISHED[row["metric"]]
    settings = {name: row[name] for name in ("table", "pretrain_data", "tokenizer", "finetune_epochs") if row[name]}
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
        protocol=ProtocolInfo(evaluator=evaluator, version=0, settings=settings),
        provenance=Provenance(source="reported", citation=CITATION),
        measurement=Measurement(
            benchmark=benchmark,
            split=split,
            metric=metric,
            value=float(Decimal(row["value"]) / 100),  # decimal, so that 83.1 becomes exactly 0.831
            n=n,
            variant=variant,
        ),
        warnings=(*extra, *([row["note"]] if row["note"] else [])),
    )
