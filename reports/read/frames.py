"""Records as a data frame with one row a record, and the published numbers as records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from cim_bench.records.record import ProtocolInfo, Record
from cim_bench.reports.read.architectures import family

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
