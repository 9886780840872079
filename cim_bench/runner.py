"""Carries out a benchmark's plan: skips what is finished, records what fails, never touches a finished number."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cim_bench import registry
from cim_bench.checkpoint import Checkpoint, Meta, content_hash, load_checkpoint
from cim_bench.context import CLASSIFIER, Context
from cim_bench.data.images import ImageSet
from cim_bench.plan import Job, make_plan
from cim_bench.provenance import describe_machine, utc_now
from cim_bench.recipe import Benchmark, Evaluator, FromCheckpoint, Pretraining, RandomInit, settings
from cim_bench.record import (
    RECORDS_FILE,
    ProtocolInfo,
    Provenance,
    Record,
    SubjectInfo,
    job_key,
    read_records,
    stable_hash,
    write_records,
)

Status = Literal["done", "skipped", "failed", "blocked"]


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """How a job ended."""

    job: Job
    status: Status
    error: str = ""


@dataclass
class Runner:
    """One benchmark in one output folder.

    Attributes:
        benchmark: What to do.
        output: Where its jobs keep their folders.
        results: How each job ended, by name.
        keys: Keys of the evaluations that have records now.
    """

    benchmark: Benchmark
    output: Path
    results: dict[str, JobResult] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    _prints: dict[tuple[str, ...], str] = field(default_factory=dict)
    _checkpoints: dict[str, Checkpoint] = field(default_factory=dict)

    def run(self) -> dict[str, JobResult]:
        """Run every job whose needs are met, wave by wave.

        Raises:
            OSError: If the output folder cannot be written.
        """
        check_writable(self.output)
        executor = registry.load(registry.target("executors", self.benchmark.executor))()
        waiting = make_plan(self.benchmark)
        while waiting:
            for job in [j for j in waiting if any(self._ended(n, ("failed", "blocked")) for n in j.needs)]:
                self.results[job.name] = JobResult(job=job, status="blocked", error=f"needs {' and '.join(job.needs)}")
                self._record_failure(job, f"blocked: {', '.join(job.needs)} failed")
            waiting = [j for j in waiting if j.name not in self.results]
            ready = [j for j in waiting if all(self._ended(n, ("done", "skipped")) for n in j.needs)]
            for result in executor.execute(ready, self.run_job):
                self.results[result.job.name] = result
                if is_main():
                    print(f"{result.status:8s}{result.job.name} {result.error}".rstrip(), file=sys.stderr, flush=True)
            waiting = [j for j in waiting if j.name not in self.results]
        return self.results

    def _ended(self, name: str, statuses: tuple[Status, ...]) -> bool:
        return name in self.results and self.results[name].status in statuses

    def run_job(self, job: Job) -> JobResult:
        """Run or skip one job; a failure becomes a failed record with its error."""
        try:
            done = self._pretrain(job) if job.kind == "pretrain" else self._evaluate(job)
        except Exception as error:  # the one place: a failed job must not take the others with it
            if os.environ.get("CIM_BENCH_DEBUG"):
                raise
            message = one_sentence(error)
            self._record_failure(job, message)
            return JobResult(job=job, status="failed", error=message)
        shutil.rmtree(self._failure_folder(job), ignore_errors=True)
        return JobResult(job=job, status="done" if done else "skipped")

    def status(self, job: Job) -> str:
        """What a run would do with a job now: ``finished``, ``to do``, or ``waits`` for a checkpoint not made yet."""
        if job.kind == "pretrain":
            return "finished" if (self._pretrain_folder(job.subject) / "checkpoint" / "meta.json").exists() else "to do"
        if any(self.status(j) != "finished" for j in make_plan(self.benchmark) if j.name in job.needs):
            return "waits"
        return "finished" if is_finished(self._evaluation(job)[0]) else "to do"

    def fingerprint(self, *splits: str) -> str:
        """Fingerprint of splits of the benchmark's data; computed once."""
        if splits not in self._prints:
            self._prints[splits] = stable_hash([ImageSet(self.benchmark.data, s).fingerprint for s in splits])
        return self._prints[splits]

    def _pretrain_folder(self, subject: str) -> Path:
        source = self.benchmark.subjects[subject]
        assert isinstance(source, Pretraining)
        return pretraining_folder(source, self.output / safe_name(subject))[0]

    def _pretrain(self, job: Job) -> bool:
        source = self.benchmark.subjects[job.subject]
        assert isinstance(source, Pretraining)
        folder, key = pretraining_folder(source, self.output / safe_name(job.subject))
        done = (folder / "checkpoint" / "meta.json").exists()
        registry.load("cim_bench.pretrain.loop:pretrain")(source, folder, key)
        return not done

    def _checkpoint(self, subject: str) -> Checkpoint:
        if subject not in self._checkpoints:
            source = self.benchmark.subjects[subject]
            if isinstance(source, Pretraining):
                self._checkpoints[subject] = load_checkpoint(self._pretrain_folder(subject) / "checkpoint")
            elif isinstance(source, FromCheckpoint):
                self._checkpoints[subject] = load_checkpoint(Path(source.path))
            else:
                self._checkpoints[subject] = random_checkpoint(source, self.benchmark.seed)
        return self._checkpoints[subject]

    def _evaluation(self, job: Job) -> tuple[Path, str, ProtocolInfo, Checkpoint]:
        """Folder, key, protocol and weights of an evaluation."""
        evaluator, data = self.benchmark.evaluators[job.evaluator], self.benchmark.data
        checkpoint = self._checkpoint(job.subject)
        if evaluator.needs == "classifier" and checkpoint.meta.kind == "backbone":
            tuned = next(j for j in make_plan(self.benchmark) if j.name == job.needs[-1])
            checkpoint = load_checkpoint(self._evaluation(tuned)[0] / CLASSIFIER)
        if evaluator.needs == "backbone" and checkpoint.meta.kind == "classifier":
            raise ValueError(
                f"{job.evaluator} takes a pre-trained backbone, "
                f"and {job.subject} is a fine-tuned classifier; give its parent checkpoint"
            )
        protocol = protocol_info(evaluator)
        print_ = self.fingerprint(data.train_split, data.val_split)
        key = job_key(weights=checkpoint.meta.hash, protocol=protocol, data=print_, seed=self.benchmark.seed)
        folder = self.output / safe_name(job.subject) / f"{safe_name(job.evaluator)}-{key[:12]}"
        return folder, key, protocol, checkpoint

    def _evaluate(self, job: Job) -> bool:
        from cim_bench.backbone import load_backbone
        from cim_bench.training import make_accelerator

        folder, key, protocol, checkpoint = self._evaluation(job)
        if is_finished(folder):
            self.keys.add(key)
            return False
        if is_main():
            folder.mkdir(parents=True, exist_ok=True)
        started, warnings = time.monotonic(), list[str]()
        context = Context(
            data=self.benchmark.data,
            machine=self.benchmark.machine,
            seed=self.benchmark.seed,
            folder=folder,
            subject=checkpoint.meta,
            main=is_main(),
            warnings=warnings,
        )
        device = make_accelerator(self.benchmark.machine).device
        model = load_backbone(checkpoint, what=job.subject).to(device)
        measurements = list(self.benchmark.evaluators[job.evaluator].run(model, context))
        if not measurements:
            raise ValueError(f"{job.evaluator} measured nothing")
        data = self.benchmark.data
        provenance = self._provenance(
            duration_s=time.monotonic() - started, data=self.fingerprint(data.train_split, data.val_split)
        )
        subject = subject_info(job.subject, checkpoint.meta)
        if is_main():
            write_records(
                folder,
                [
                    Record(
                        key=key,
                        subject=subject,
                        protocol=protocol,
                        provenance=provenance,
                        measurement=m,
                        warnings=tuple(warnings),
                    )
                    for m in measurements
                ],
            )
        self.keys.add(key)
        return True

    def _provenance(self, **known: Any) -> Provenance:
        return Provenance(
            source="measured",
            seed=self.benchmark.seed,
            time=utc_now(),
            **describe_machine(self.benchmark.machine.device),
            **known,
        )

    def _failure_folder(self, job: Job) -> Path:
        return self.output / safe_name(job.subject) / f"{safe_name(job.evaluator or 'pretrain')}-failed"

    def _record_failure(self, job: Job, error: str) -> None:
        source = self.benchmark.subjects[job.subject]
        if job.kind == "pretrain" or not is_main():
            return
        known = self._checkpoints.get(job.subject)
        if known is not None:
            subject = subject_info(job.subject, known.meta)
        elif isinstance(source, Pretraining):
            subject = SubjectInfo(
                name=job.subject, method=source.pretext.method, arch=str(source.arch), epochs=source.training.epochs
            )
        else:
            subject = SubjectInfo(name=job.subject, method="unknown", arch="unknown")
        protocol = protocol_info(self.benchmark.evaluators[job.evaluator])
        provenance = self._provenance(status="failed", error=error)
        write_records(
            self._failure_folder(job),
            [Record(key="", subject=subject, protocol=protocol, provenance=provenance, measurement=None)],
        )


def pretraining_folder(recipe: Pretraining, parent: Path) -> tuple[Path, str]:
    """Folder and key of a pre-training job."""
    data = ImageSet(recipe.data, recipe.data.train_split).fingerprint
    key = registry.load("cim_bench.pretrain.loop:pretraining_key")(recipe, data)
    return parent / f"pretrain-{key[:12]}", key


def random_checkpoint(source: RandomInit, seed: int) -> Checkpoint:
    """Freshly initialised weights as a checkpoint."""
    from cim_bench.backbone import create_net
    from cim_bench.data.transforms import seed_all

    seed_all(seed, "weights")
    if source.pretext is None:
        state = create_net(source.arch, num_classes=0).state_dict()
    else:
        state = source.pretext.build(source.arch).backbone_state("online")
    meta = Meta(
        kind="backbone",
        method="random",
        arch=source.arch,
        epochs=None,
        seed=seed,
        recipe=settings(source),
        hash=content_hash(state),
    )
    return Checkpoint(state=state, meta=meta)


def subject_info(name: str, meta: Meta) -> SubjectInfo:
    """Identity of a checkpoint as records carry it."""
    return SubjectInfo(
        name=name, method=meta.method, arch=str(meta.arch), epochs=meta.epochs, checkpoint=meta.hash, parent=meta.parent
    )


def protocol_info(evaluator: Evaluator) -> ProtocolInfo:
    """An evaluator's name, version, all knobs, and those that differ from its defaults."""
    resolved = settings(evaluator)
    defaults = settings(type(evaluator)())
    return ProtocolInfo(
        evaluator=registry.name_of("evaluators", type(evaluator)),
        version=type(evaluator).version,
        settings=resolved,
        passed=_difference(resolved, defaults),
    )


def _difference(values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values that differ from their defaults, by dotted name."""
    changed: dict[str, Any] = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            changed |= _difference(value, default, f"{prefix}{name}.")
        elif value != default:
            changed[f"{prefix}{name}"] = value
    return changed


def is_finished(folder: Path) -> bool:
    """True where a job left its records."""
    return (folder / RECORDS_FILE).exists() and all(
        r.measurement is not None for r in read_records(folder / RECORDS_FILE)
    )


def is_main() -> bool:
    """True in the one process that writes."""
    return os.environ.get("RANK", "0") == "0"


def safe_name(name: str) -> str:
    """A name as one folder name: nothing in it leads out of its parent.

    Raises:
        ValueError: If nothing usable is left of the name.
    """
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip(".")
    if not safe:
        raise ValueError(f"{name!r} cannot name a folder; use letters and digits")
    return safe


def check_writable(folder: Path) -> None:
    """Fail before any work is done if results could not be kept.

    Raises:
        OSError: Naming the folder.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write to the output folder {folder}: {error.strerror}; choose another with --output"
        ) from error


def one_sentence(error: BaseException) -> str:
    """An error as one line; of one that crossed from a loader worker, its own words alone."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if not error.filename else f"{error.filename}: {error.strerror}"
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    known = isinstance(error, ValueError | OSError | ArithmeticError)
    return " ".join((text if known and text else f"{type(error).__name__}: {text}").split())
