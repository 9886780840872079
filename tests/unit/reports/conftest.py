"""Makers of records, and of jobs with their outcomes, for the tests of the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cim_bench.records.measurement import Measurement
from cim_bench.records.record import ProtocolInfo, Provenance, Record, SubjectInfo
from cim_bench.records.store import write_records

PARTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "subject": (SubjectInfo, {"name": "cim", "method": "cim", "arch": "vit_tiny", "epochs": 20.0}),
    "protocol": (ProtocolInfo, {"evaluator": "knn", "version": 1}),
    "provenance": (Provenance, {"source": "measured"}),
    "measurement": (
        Measurement,
        {"benchmark": "photos", "split": "val", "metric": "top1", "value": 0.5, "n": 100},
    ),
}


@pytest.fixture
def make() -> Callable[..., Record]:
    """Builds a record from flat field names; ``error="..."`` makes it a failed one.

    ``passed`` is the protocol's; the subject's is ``pretext_passed``.
    """

    def record(**fields: Any) -> Record:
        key, warnings = fields.pop("key", "k1"), tuple(fields.pop("warnings", ()))
        if "error" in fields:
            fields["status"] = "failed"
        built: dict[str, Any] = {}
        pretext_passed = {"passed": fields.pop("pretext_passed", {})}
        for part, (kind, defaults) in PARTS.items():
            own = pretext_passed if part == "subject" else {}
            names = kind.__dataclass_fields__.keys() & fields.keys() - own.keys()
            own |= {name: fields.pop(name) for name in names}
            built[part] = kind(**{**defaults, **own})
        assert not fields, f"no such record field: {fields}"
        if built["provenance"].status == "failed":
            built["measurement"] = None
        return Record(key=key, warnings=warnings, **built)

    return record


@pytest.fixture
def write_job(make: Callable[..., Record]) -> Callable[..., list[Record]]:
    """Writes a job: records of what is given, and its outcomes in some parts.

    `wrong` says by variant which images were misclassified; the label of image i is i % 3.
    """

    def write(folder: Path, wrong: Mapping[str, Any], *, parts: int = 1, **fields: Any) -> list[Record]:
        n = len(next(iter(wrong.values())))
        ids, labels = np.array([f"val/{i:05}.png" for i in range(n)]), np.arange(n) % 3
        columns = {name or "prediction": labels + np.asarray(flags, dtype=np.int64) for name, flags in wrong.items()}
        (folder / "outcomes").mkdir(parents=True)
        for number, rows in enumerate(np.array_split(np.arange(n), parts)):
            table = {"id": ids[rows], "label": labels[rows], **{name: c[rows] for name, c in columns.items()}}
            name = "images-subset" if fields.get("partial") and number == 0 else f"images-{number:03}"
            pq.write_table(pa.table(table), folder / "outcomes" / f"{name}.parquet")
        records = [
            make(**{"key": folder.name, "n": n, **fields}, variant=name, value=1.0 - float(np.mean(flags)))
            for name, flags in wrong.items()
        ]
        write_records(folder / "partial" if fields.get("partial") else folder, records)
        return records

    return write
