"""What an output folder tells of a benchmark's jobs: where each keeps its results, and whether they are there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cim_bench.benchmark import Benchmark
from cim_bench.common.errors import one_sentence
from cim_bench.common.files import safe_name
from cim_bench.contracts.context import CLASSIFIER
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.contracts.executor import Job
from cim_bench.data.fingerprint import join_fingerprints
from cim_bench.engine.devices import device_name, is_main
from cim_bench.jobs.identity import pretraining_info, protocol_info
from cim_bench.jobs.subjects import Subjects, is_trained
from cim_bench.models.checkpoint import Meta, read_meta
from cim_bench.records.keys import job_key
from cim_bench.records.provenance import describe_code, utc_now
from cim_bench.records.record import ProtocolInfo, Provenance, Record
from cim_bench.records.store import PARTIAL, is_finished, read_records, write_records
from cim_bench.spec import Data

Progress = Literal["none", "partial", "finished"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of one subject, identified.

    Attributes:
        job: Its job.
        evaluator: The protocol.
        folder: Where it keeps its results.
        key: Hash of all that its numbers depend on.
        protocol: The protocol as its records name it.
        meta: Identity of the weights.
        classifier: Folder of the fine-tuned weights; ``None`` where they are the subject's own.
    """

    job: Job
    evaluator: Evaluator
    folder: Path
    key: str
    protocol: ProtocolInfo
    meta: Meta
    classifier: Path | None


@dataclass
class JobStates:
    """The jobs of one benchmark in one output folder.

    Attributes:
        benchmark: What they measure.
        output: Where they keep their folders.
        jobs: All of them, by name.
    """

    benchmark: Benchmark
    output: Path
    jobs: dict[str, Job]
    _fingerprints: dict[tuple[object, Data, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.subjects = Subjects(self.benchmark, self.output)

    def fingerprint(self, evaluator: Evaluator) -> str:
        """Fingerprint of all that an evaluator reads."""
        pairs = evaluator.reads(self.benchmark.data)
        return join_fingerprints([self.fingerprint_of(evaluator, *pair) for pair in pairs])

    def fingerprint_of(self, evaluator: Evaluator, data: Data, split: str) -> str:
        """Fingerprint of a split that an evaluator reads, which is looked through once."""
        opens = type(evaluator).opens
        if (opens, data, split) not in self._fingerprints:
            self._fingerprints[opens, data, split] = opens(data, split).fingerprint
        return self._fingerprints[opens, data, split]

    def evaluation(self, job: Job) -> Evaluation:
        """Folder, key and protocol of an evaluation, and which weights it takes.

        Raises:
            ValueError: If the evaluator takes a backbone and the subject is a classifier, or if a set or checkpoint
                cannot be read.
        """
        evaluator, meta = self.benchmark.evaluators[job.evaluator], self.subjects.meta(job.subject)
        classifier = None
        if evaluator.needs == "classifier" and meta.kind == "backbone":
            classifier = self.evaluation(self.jobs[job.needs[-1]]).folder / CLASSIFIER
            parent, meta = meta, read_meta(classifier)
            if meta.parent != parent.hash:
                raise ValueError(f"{classifier} was not fine-tuned from {job.subject}; delete {classifier.parent}")
        if evaluator.needs == "backbone" and meta.kind == "classifier":
            raise ValueError(
                f"{job.evaluator} takes a pre-trained backbone, "
                f"and {job.subject} is a fine-tuned classifier; give its parent checkpoint, or set its drop_head"
            )
        protocol, data = protocol_info(evaluator, self.benchmark.data), self.fingerprint(evaluator)
        key = job_key(weights=meta.identity, protocol=protocol, data=data, seed=self.benchmark.seed)
        return Evaluation(
            job=job,
            evaluator=evaluator,
            folder=self.subjects.folder(job.subject) / f"{safe_name(job.evaluator)}-{key[:12]}",
            key=key,
            protocol=protocol,
            meta=meta,
            classifier=classifier,
        )

    def progress(self, job: Job) -> Progress:
        """Which records a job has.

        Raises:
            ValueError: If a set or checkpoint that tells its key cannot be read, or its records are damaged.
        """
        if job.kind == "pretrain":
            _, folder, key = self.subjects.pretraining(job.subject)
            return "finished" if is_trained(folder, key) else "none"
        evaluation = self.evaluation(job)
        folder, key = evaluation.folder, evaluation.key
        return "finished" if is_finished(folder, key) else "partial" if is_finished(folder / PARTIAL, key) else "none"

    def is_enough(self, progress: Progress) -> bool:
        """Whether a job with these records need not be run, as far as the benchmark asks."""
        return progress == "finished" or (progress == "partial" and self.benchmark.machine.subset_only)

    def status(self, job: Job) -> str:
        """How a job stands: ``finished``, ``partial``, ``to do``, ``waits`` for a checkpoint, or ``missing: WHAT``."""
        try:
            if job.kind == "evaluate":
                self.fingerprint(self.benchmark.evaluators[job.evaluator])
                if any(self.status(self.jobs[need]) != "finished" for need in job.needs):
                    return "waits"
            progress = self.progress(job)
        except (ValueError, OSError) as error:
            return f"missing: {one_sentence(error)}"
        return "to do" if progress == "none" else progress

    def keys(self, jobs: Iterable[Job]) -> set[str]:
        """Keys of those evaluations that have records."""
        found = set()
        for job in jobs:
            try:
                if job.kind == "evaluate" and self.progress(job) != "none":
                    found.add(self.evaluation(job).key)
            except (ValueError, OSError):  # what its key depends on was not made, or is not there
                continue
        return found

    def provenance(self, **known: Any) -> Provenance:
        """Where a record of this process comes from."""
        machine = self.benchmark.machine
        return Provenance(
            source="measured",
            seed=self.benchmark.seed,
            time=utc_now(),
            micro_batch=machine.micro_batch,
            device=device_name(machine.device),
            **describe_code(),
            **known,
        )

    def failure_folder(self, job: Job) -> Path:
        """Where the record of a failed job is."""
        return self.subjects.folder(job.subject) / f"{safe_name(job.evaluator or 'pretrain')}-failed"

    def failure(self, job: Job) -> str:
        """The recorded error of a job; empty if it has none."""
        folder = self.failure_folder(job)
        if not folder.exists():
            return ""
        return next((record.provenance.error for record in read_records(folder)), "")

    def record_failure(self, job: Job, error: str) -> None:
        """Keep an error as the record of a job, and the records of the others as they are."""
        if not is_main():
            return
        source = self.benchmark.subjects[job.subject]
        protocol = (
            protocol_info(self.benchmark.evaluators[job.evaluator]) if job.evaluator else pretraining_info(source)
        )
        record = Record(
            key="",
            subject=self.subjects.info(job.subject),
            protocol=protocol,
            provenance=self.provenance(status="failed", error=error),
            measurement=None,
        )
        write_records(self.failure_folder(job), [record])

    def clear_failures(self, jobs: Sequence[Job]) -> None:
        """Remove the records of earlier failures of jobs that are run again or have ended well."""
        if is_main():
            for job in jobs:
                shutil.rmtree(self.failure_folder(job), ignore_errors=True)
