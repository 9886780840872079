"""Records: a measurement with everything needed to trust and trace it. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cim_bench.records.measurement import Measurement
from cim_bench.records.upgrade import FIRST_SCHEMA, upgrade

SCHEMA_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class SubjectInfo:
    """Which weights were measured.

    Attributes:
        name: The row's name in its benchmark.
        method: Pretext or training method, e.g. ``CIM`` or ``random``.
        arch: timm model name with its options.
        epochs: Pre-training epochs; ``None`` where none apply.
        checkpoint: Content hash of the weights; empty for a published row.
        parent: Content hash of the checkpoint these weights were trained from; empty if there is none.
        pretrain_data: Image set of the pre-training; empty where nobody told.
        passed: Settings of the pretext that differ from the method's defaults.
        job: Key of the job that made the weights; empty for random and foreign ones.
        recognised: What told the format and the normalisation of a foreign file; "as told" where the user did.
    """

    name: str
    method: str
    arch: str
    epochs: float | None = None
    checkpoint: str = ""
    parent: str = ""
    pretrain_data: str = ""
    passed: Mapping[str, Any] = field(default_factory=dict)
    job: str = ""
    recognised: str = ""


@dataclass(frozen=True, kw_only=True)
class ProtocolInfo:
    """How it was measured.

    Attributes:
        evaluator: Registry name of the evaluator.
        version: The evaluator's version; numbers of different versions never share a column.
        settings: Every knob's resolved value.
        passed: The knobs that differ from the evaluator's defaults.
        selection: Which epoch is reported: ``last``, or ``best_on:<split>``.
        partial: True where only a subset of the samples was measured.
        identity: What else its numbers depend on, by name (`cim_bench.contracts.evaluator.Evaluator.identity`).
    """

    evaluator: str
    version: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    passed: Mapping[str, Any] = field(default_factory=dict)
    selection: str = "last"
    partial: bool = False
    identity: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a number comes from.

    Attributes:
        source: ``measured`` by this program or ``reported`` by a publication.
        citation: The publication, for a reported number.
        status: ``ok``, or ``failed`` with `error` and no measurement.
        error: One sentence, for a failed job.
        seed: Seed of every random choice of the job.
        commit: Git commit of the code; empty outside a checkout.
        dirty: True if that checkout had uncommitted changes.
        packages: Versions of the packages that can move a number.
        device: Name of the device the job ran on.
        micro_batch: Most images in one pass; it enters batch statistics, and draws that a pass makes as a whole.
        duration_s: Wall time of the job in seconds.
        data: Fingerprint of the data that was read; it begins with ``sampled:`` where the contents of a set of more
            than 100,000 images were hashed in part.
        time: UTC time the record was made, ISO 8601.
    """

    source: Literal["measured", "reported"]
    citation: str = ""
    status: Literal["ok", "failed"] = "ok"
    error: str = ""
    seed: int | None = None
    commit: str = ""
    dirty: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    micro_batch: int | None = None
    duration_s: float | None = None
    data: str = ""
    time: str = ""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A measurement with its full provenance; immutable on disk.

    Attributes:
        key: The job's key (see `job_key`); empty for a reported number.
        subject: Which weights.
        protocol: How.
        provenance: Where from.
        measurement: The number; ``None`` exactly where the job failed.
        warnings: Sentences that a table prints as footnotes.
        schema: Version of this layout.
    """

    key: str
    subject: SubjectInfo
    protocol: ProtocolInfo
    provenance: Provenance
    measurement: Measurement | None
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if (self.measurement is None) != (self.provenance.status == "failed"):
            raise ValueError("a record has a measurement exactly where its job did not fail")

    def to_json(self) -> str:
        """One line of JSON; NaN and infinity are refused."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Inverse of `to_json`; records of version 0.1.0 become what they would be now.

        Raises:
            ValueError: If the line is not a record, or one of a schema that this version does not know.
        """
        raw = json.loads(line)
        if not isinstance(raw, dict):
            raise ValueError(f"not a record: {line[:40]!r}")
        if raw.get("schema") not in (FIRST_SCHEMA, SCHEMA_VERSION):
            raise ValueError(f"record schema {raw.get('schema')!r} is not {SCHEMA_VERSION}")
        try:
            raw = upgrade(raw) if raw["schema"] == FIRST_SCHEMA else raw
            return cls(
                key=raw["key"],
                subject=SubjectInfo(**raw["subject"]),
                protocol=ProtocolInfo(**raw["protocol"]),
                provenance=Provenance(**raw["provenance"]),
                measurement=Measurement(**raw["measurement"]) if raw["measurement"] else None,
                warnings=tuple(raw["warnings"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a record: {error}") from error
