"""Makers of records, and of jobs with their outcomes, for the tests of the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cim_bench.records.confusions import NUMBERS, class_sums, confusions_file, to_cells, write_confusions
from cim_bench.records.facets import CLEAN, Facets
from cim_bench.records.measurement import Measurement
from cim_bench.records.outcomes import outcomes_file, write_outcomes
from cim_bench.records.record import ProtocolInfo, Provenance, Record, SubjectInfo
from cim_bench.records.store import write_records
from cim_bench.reports.tables.corruption_summaries import damage_facets

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

    ``passed`` is the protocol's; the subject's is ``pretext_passed``. Corruptions have the setting ``source`` that
    their job would have, if the test gives no settings.
    """

    def record(**fields: Any) -> Record:
        key, warnings = fields.pop("key", "k1"), tuple(fields.pop("warnings", ()))
        if "error" in fields:
            fields["status"] = "failed"
        if fields.get("evaluator") == "corruptions" and "error" not in fields:
            is_generated = fields.get("benchmark", "").endswith("-c-generated")
            fields.setdefault("settings", {"source": "generated" if is_generated else "released"})
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

    `wrong` says which images were misclassified, by "" for no facets, `CLEAN` for no corruption, a corruption with its
    severity, or any facets as pairs; the label of image i is i % 3.
    """

    def write(folder: Path, wrong: Mapping[Any, Any], *, parts: int = 1, **fields: Any) -> list[Record]:
        n = len(next(iter(wrong.values())))
        ids, labels = np.array([f"val/{i:05}.png" for i in range(n)]), np.arange(n) % 3
        records = [
            make(**{"key": folder.name, "n": n, **fields}, facets=facets_of(key), value=1.0 - float(np.mean(flags)))
            for key, flags in wrong.items()
        ]
        answers = [(facets_of(key), labels + np.asarray(flags, dtype=np.int64)) for key, flags in wrong.items()]
        for number, rows in enumerate(np.array_split(np.arange(n), parts)):
            name = "images-subset" if fields.get("partial") and number == 0 else f"images-{number:03}"
            predicted = [(facets, values[rows]) for facets, values in answers]
            write_outcomes(outcomes_file(folder, name), ids[rows], labels[rows], predicted, records[0].protocol)
        write_records(folder / "partial" if fields.get("partial") else folder, records)
        return records

    return write


def facets_of(key: Any) -> Facets:
    """The facets that `write_job` means by a key."""
    if key in ("", CLEAN):
        return {"corruption": CLEAN} if key else {}
    return damage_facets(key) if isinstance(key[0], str) else dict(key)


@pytest.fixture
def write_segmentation(make: Callable[..., Record]) -> Callable[..., list[Record]]:
    """Writes a job of segmentation: its confusion matrices, (N, C, C) by facets as pairs, and the records of them."""

    def write(folder: Path, found: Mapping[Any, Any], **fields: Any) -> list[Record]:
        own = {"evaluator": "segmentation_upernet", "benchmark": "facade", **fields}
        records = []
        for facets, matrices in found.items():
            sums = class_sums([to_cells(matrix) for matrix in matrices], len(matrices[0]))
            records += [
                make(
                    **{"key": folder.name, **own},
                    facets=dict(facets),
                    n=len(matrices),
                    metric=metric,
                    value=float(number(sums.sum(0))),
                )
                for metric, number in NUMBERS.items()
            ]
        n, classes = len(matrices), len(matrices[0])
        cells = [(dict(facets), [to_cells(one) for one in matrices]) for facets, matrices in found.items()]
        ids, names = [f"{i:05}.jpg" for i in range(n)], [f"class {c}" for c in range(classes)]
        file = confusions_file(folder, "all")
        write_confusions(file, ids, names, cells, records[0].protocol, records[0].key)
        write_records(folder, records)
        return records

    return write


@pytest.fixture
def street_matrices() -> Callable[..., Any]:
    """Confusion matrices (N, C, C) of images; the truth of a seed is the same whatever share is right."""

    def matrices(count: int = 30, classes: int = 4, *, right: float = 0.7, seed: int = 0) -> Any:
        draw = np.random.default_rng(seed)
        pixels = draw.integers(0, 500, (count, classes))
        chance = np.full((classes, classes), (1 - right) / (classes - 1))
        np.fill_diagonal(chance, right)
        return np.array([[draw.multinomial(n, chance[c]) for c, n in enumerate(image)] for image in pixels])

    return matrices
