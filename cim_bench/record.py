"""Measurements and records: what a number is, and everything needed to trust and trace it.

A record is one JSON object on one line of ``records.jsonl`` in the folder of the job that made it. It is
written once, atomically, and never edited. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA_VERSION = 1
RECORDS_FILE = "records.jsonl"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a metric's raw value means."""

    unit: str
    higher_is_better: bool
    low: float
    high: float


# Closed: a number whose metric is not listed here cannot be recorded.
METRICS: Mapping[str, Metric] = {
    "top1": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
    "top5": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
    "miou": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
    "mce": Metric(unit="ratio", higher_is_better=False, low=0.0, high=math.inf),
    "relative_mce": Metric(unit="ratio", higher_is_better=False, low=-math.inf, high=math.inf),
    "map_iou": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One raw number and the count it rests on.

    Attributes:
        benchmark: Data set that was measured, e.g. ``imagenet-1k``.
        split: Its split, e.g. ``val``.
        metric: A key of `METRICS`.
        value: Raw value in the metric's unit; a fraction in [0, 1], never a percentage.
        n: How many samples the value rests on; at least 1.
        variant: What distinguishes rows of one protocol, e.g. ``k=20``; empty if nothing does.

    Raises:
        ValueError: For an unknown metric, an empty set, or a value that is not finite or out of range.
    """

    benchmark: str
    split: str
    metric: str
    value: float
    n: int
    variant: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is not known; choose one of {', '.join(sorted(METRICS))}")
        if self.n < 1:
            raise ValueError(
                f"{self.metric} on {self.benchmark}/{self.split} rests on n={self.n} samples; nothing was measured"
            )
        metric = METRICS[self.metric]
        if not math.isfinite(self.value) or not metric.low <= self.value <= metric.high:
            raise ValueError(
                f"{self.metric} on {self.benchmark}/{self.split} is {self.value}, "
                f"outside [{metric.low}, {metric.high}] ({metric.unit})"
            )


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
    """

    evaluator: str
    version: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    passed: Mapping[str, Any] = field(default_factory=dict)
    selection: str = "last"
    partial: bool = False


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
        data: Fingerprint of the data that was read.
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
        """Inverse of `to_json`.

        Raises:
            ValueError: If the line is not a record of this schema version.
        """
        raw = json.loads(line)
        if not isinstance(raw, dict):
            raise ValueError(f"not a record: {line[:40]!r}")
        if raw.get("schema") != SCHEMA_VERSION:
            raise ValueError(f"record schema {raw.get('schema')!r} is not {SCHEMA_VERSION}")
        try:
            return cls(
                key=raw["key"],
                subject=SubjectInfo(**raw["subject"]),
                protocol=ProtocolInfo(**raw["protocol"]),
                provenance=Provenance(**raw["provenance"]),
                measurement=Measurement(**raw["measurement"]) if raw["measurement"] else None,
                warnings=tuple(raw["warnings"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a record: {error}") from error


def stable_hash(value: object) -> str:
    """SHA-256 (hex) of a JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sample_seed(seed: int, image: str) -> int:
    """A seed of 60 bits for one image, from a number and its id without suffix: a copy as JPEG has the same."""
    return int(stable_hash([seed, str(Path(image).with_suffix(""))])[:15], 16)


def job_key(*, weights: str, protocol: ProtocolInfo, data: str, seed: int) -> str:
    """Identity of an evaluation: the same key means the same number, so the job is skipped.

    Args:
        weights: Identity of the checkpoint: its content, network, normalisation and method.
        protocol: Evaluator, version and resolved settings.
        data: Fingerprint of the data.
        seed: The job's seed.
    """
    identity = {"evaluator": protocol.evaluator, "version": protocol.version, "settings": protocol.settings}
    return stable_hash({"weights": weights, "protocol": identity, "data": data, "seed": seed})


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: a temporary neighbour is flushed to disk, then renamed over `path`.

    Raises:
        OSError: Naming `path`, if its folder is not writable or the disk is full; an earlier file stays.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's 0600 would hide results from colleagues
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror}; free space or choose another output folder"
        ) from error


def write_records(folder: Path, records: Iterable[Record]) -> None:
    """Write a finished job's records to ``folder/records.jsonl``, atomically."""
    write_atomic(folder / RECORDS_FILE, "".join(record.to_json() + "\n" for record in records))


def read_records(path: Path) -> Iterator[Record]:
    """Records of one file, or of every ``records.jsonl`` below a folder, in sorted order.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: Naming file and line, if a line is not a record.
    """
    if not path.exists():
        raise FileNotFoundError(f"no records at {path}; give a file or folder that `cim-bench run` has written")
    for file in [path] if path.is_file() else sorted(path.rglob(RECORDS_FILE)):
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            try:
                yield Record.from_json(line.decode())
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: {error}") from error
