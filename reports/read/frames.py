"""Records as a data frame with one row a record, and the published numbers as records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from cim_bench.data.sets import CORRUPTED, SHIFTS, Origin, origin
from cim_bench.records.facets import as_255, is_first_eps
from cim_bench.records.measurement import Measurement
from cim_bench.records.record import ProtocolInfo, Record
from cim_bench.reports.read.architectures import family

# What a failed record lacks, since its job measured nothing.
MEASUREMENT_FIELDS = ("benchmark", "split", "metric", "facets", "value", "n", "chance")


# Derived from the measurement and the settings; what neither of a failed record tells is ``None``.
PLACE_FIELDS = ("dataset", "base", "shift", "corruption_source", "further_eps")


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
    *PLACE_FIELDS,
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

    Values keep their Python types (``epochs`` may be ``None``, ``passed`` and ``facets`` are dicts). A failed record
    has ``None`` in `MEASUREMENT_FIELDS`. Further fields follow from others:

    * ``pretext`` is looked up in `PRETEXTS`, empty for an unlisted method; ``pretext_passed`` is the subject's
      ``passed``; ``family`` is that of ``arch``; ``finetune_epochs`` are those of a fine-tuning, measured or published,
      else ``None``.
    * ``dataset`` is the benchmark, or the shifted set that a failed job was to measure; ``base`` the set that a
      shifted or corrupted one was made from, else the benchmark itself; ``shift`` one of `SHIFTS`, empty for any other
      set or protocol.
    * ``corruption_source`` is ``released`` or ``generated``, empty for other protocols; ``further_eps`` the size of an
      attack that is not the first of its protocol, such as ``8/255``, else empty.
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
        **_place(record.protocol, record.measurement),
        **vars(record.provenance),
        "warnings": record.warnings,
    }


def _place(protocol: ProtocolInfo, measurement: Measurement | None) -> dict[str, str | None]:
    """`PLACE_FIELDS` of a record."""
    dataset = measurement.benchmark if measurement else _set_to_measure(protocol)
    made = None if dataset is None else _origin(dataset, protocol.evaluator)
    return {
        "dataset": dataset,
        "base": made and made.base,
        "shift": "" if protocol.evaluator != "shifts" else made and made.change,
        "corruption_source": protocol.settings.get("source") if protocol.evaluator == "corruptions" else "",
        "further_eps": _further_eps(measurement, protocol.settings) if measurement else None,
    }


def _set_to_measure(protocol: ProtocolInfo) -> str | None:
    """The set that a failed job was to measure, where its settings tell."""
    data = protocol.settings.get("data") if protocol.evaluator == "shifts" else None
    return str(data["name"]) if isinstance(data, Mapping) and "name" in data else None


def _origin(dataset: str, evaluator: str) -> Origin:
    """Where a set comes from, as far as its protocol is about that."""
    found = origin(dataset)
    expected = {"shifts": SHIFTS, "corruptions": CORRUPTED}.get(evaluator, ())
    return found if found.change in expected else Origin(dataset, "")


def _further_eps(measurement: Measurement, settings: Mapping[str, Any]) -> str:
    eps = measurement.facets.get("eps")
    return as_255(eps) if isinstance(eps, float | int) and not is_first_eps(eps, settings) else ""


def _finetune_epochs(protocol: ProtocolInfo) -> float | None:
    training = protocol.settings.get("training")
    own = training.get("epochs") if protocol.evaluator == "finetune" and isinstance(training, Mapping) else None
    epochs = protocol.settings.get("finetune_epochs", own)
    return None if epochs is None else float(epochs)
