"""Records that version 0.1.0 wrote, read by this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cim_bench.records.record import SCHEMA_VERSION, Record

KEPT = Path(__file__).parents[3] / "fixtures" / "schema1"
FACETS: dict[str, list[dict[str, Any] | None]] = {
    "knn": [{"k": 20}, {"k": 3}],
    "linear_probe": [{}],
    "finetune": [{}],
    "adversarial": [
        {"attack": "clean"},
        {"attack": "fgsm", "eps": 1 / 255},
        {"attack": "clean"},
        {"attack": "fgsm", "eps": 2 / 255},
        {"attack": "pgd", "eps": 8 / 255},
        {"attack": "pgdl2", "eps": 0.05},
    ],
    "corruptions": [
        {"corruption": "clean"},
        {"corruption": "gaussian_noise", "severity": 1},
        {"corruption": "jpeg_compression", "severity": 5},
    ],
    "shifts": [{}, {}, {"images": "clean", "classes": 3}],
    "plugin": [{"brightest.variant": "first four"}, {"brightest.variant": "last=4"}],
    "failed": [None],
}


@pytest.mark.parametrize("name", sorted(FACETS))
def test_variants_become_facets_and_nothing_else_changes(name: str) -> None:
    lines = (KEPT / f"{name}.jsonl").read_text().splitlines()
    for line, facets in zip(lines, FACETS[name], strict=True):
        record, old = Record.from_json(line), json.loads(line)
        assert (record.measurement and record.measurement.facets) == facets
        new = json.loads(record.to_json())
        assert new["protocol"].pop("identity") == {}
        assert new["subject"].pop("recognised") == ""
        assert (old.pop("schema"), new.pop("schema")) == (1, SCHEMA_VERSION)
        for raw, field in ((old, "variant"), (new, "facets")):
            if raw["measurement"]:
                del raw["measurement"][field]
        assert new["measurement"] is None or new["measurement"].pop("chance") is None  # version 0.1.0 did not tell it
        assert new == old
        assert Record.from_json(record.to_json()) == record


def test_every_kept_record_is_looked_at() -> None:
    assert {file.stem for file in KEPT.glob("*.jsonl")} == FACETS.keys()
