"""A maker of records for the tests of the reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cim_bench.record import Measurement, ProtocolInfo, Provenance, Record, SubjectInfo

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
    """Builds a record from flat field names; ``error="..."`` makes it a failed one."""

    def record(**fields: Any) -> Record:
        key, warnings = fields.pop("key", "k1"), tuple(fields.pop("warnings", ()))
        if "error" in fields:
            fields["status"] = "failed"
        built: dict[str, Any] = {}
        for part, (kind, defaults) in PARTS.items():
            own = {name: fields.pop(name) for name in list(fields) if name in kind.__dataclass_fields__}
            built[part] = kind(**{**defaults, **own})
        assert not fields, f"no such record field: {fields}"
        if built["provenance"].status == "failed":
            built["measurement"] = None
        return Record(key=key, warnings=warnings, **built)

    return record
