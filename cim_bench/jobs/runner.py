"""Carries out a benchmark's plan: skips what is finished, records what fails, never touches a finished number."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from cim_bench import registry
from cim_bench.benchmark import Benchmark
from cim_bench.common.errors import one_sentence
from cim_bench.common.files import check_writable, safe_name
from cim_bench.common.hashing import stable_hash
from cim_bench.contracts.context import CLASSIFIER, Context
from cim_bench.contracts.evaluator import Evaluator, SetEvaluator
from cim_bench.contracts.executor import Job
from cim_bench.data.images import ImageSet
from cim_bench.engine.devices import device_name, is_main
from cim_bench.jobs.identity import protocol_info, subject_info
from cim_bench.jobs.plan import is_absent, left_out, make_plan, select_jobs
from cim_bench.jobs.pretraining import pretrain
from cim_bench.jobs.subjects import Subjects
from cim_bench.models.backbone import Backbone
from cim_bench.models.checkpoint import Checkpoint, load_checkpoint
from cim_bench.records.keys import job_key
from cim_bench.records.measurement import Measurement
from cim_bench.records.provenance import describe_code, utc_now
from cim_bench.records.record import ProtocolInfo, Provenance, Record
from cim_bench.records.store import PARTIAL, RECORDS_FILE, is_finished, write_records
from cim_bench.spec import Data

T = TypeVar("T")
Status = Literal["done", "partial", "skipped", "failed", "blocked"]


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """How a job ended; ``partial``: after its subset, as asked for."""

    job: Job
    status: Status
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A job that is to be measured: where, under which key, with which weights."""

    job: Job
    evaluator: Evaluator
    folder: Path
    key: str
    protocol: ProtocolInfo
    checkpoint: Checkpoint


@dataclass
class Runner:
    """One benchmark in one output folder.

    Attributes:
        benchmark: What to do.
        output: Where its jobs keep their folders.
        only_jobs: Patterns of the jobs to run, with those that they need; none for all.
        results: How each job ended, by name.
        keys: Keys of the evaluations that have records now.
    """

    benchmark: Benchmark
    output: Path
    only_jobs: Sequence[str] = ()
    results: dict[str, JobResult] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    _prints: dict[tuple[Data, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.subjects = Subjects(self.benchmark, self.output)

    @cached_property
    def jobs(self) -> list[Job]:
        """The jobs to run, dependencies first."""
        absent = [name for name, source in self.benchmark.subjects.items() if is_absent(source)]
        return select_jobs(make_plan(self.benchmark), self.only_jobs, absent)

    @property
    def left_out(self) -> list[str]:
        """What subjects with jobs do not pass through, a sentence each."""
        return left_out(self.benchmark, {job.subject for job in self.jobs})

    def run(self) -> dict[str, JobResult]:
        """Run every job whose needs are met, wave by wave.

        Raises:
            OSError: If the output folder cannot be written.
        """
        check_writable(self.output)
        if is_main():
            for sentence in self.left_out:
                print(sentence, file=sys.stderr)
        executor = registry.load(registry.target("executors", self.benchmark.executor))()
        waiting = self.jobs
        while waiting:
            for job in [j for j in waiting if any(self._ended(n, ("failed", "blocked")) for n in j.needs)]:
                self.results[job.name] = JobResult(job=job, status="blocked", error=f"needs {' and '.join(job.needs)}")
                self._record_failure(job, f"blocked: {', '.join(job.needs)} failed")
            waiting = [j for j in waiting if j.name not in self.results]
            ready = [j for j in waiting if all(self._ended(n, ("done", "skipped")) for n in j.needs)]
            for result in executor.execute(self._groups(self._without_early(ready, waiting)), self.run_jobs):
                self.results[result.job.name] = result
                if is_main():
                    print(f"{result.status:8s}{result.job.name} {result.error}".rstrip(), file=sys.stderr, flush=True)
            waiting = [j for j in waiting if j.name not in self.results]
        return self.results

    def _ended(self, name: str, statuses: tuple[Status, ...]) -> bool:
        return name in self.results and self.results[name].status in statuses

    def _is_shared(self, job: Job) -> bool:
        return isinstance(self.benchmark.evaluators.get(job.evaluator), SetEvaluator)

    def _without_early(self, ready: Sequence[Job], waiting: Sequence[Job]) -> list[Job]:
        """Ready jobs, but for those that can share a pass with a job that is not ready yet."""
        late = {job.evaluator for job in waiting if job not in ready and self._is_shared(job)}
        return [job for job in ready if job.evaluator not in late]

    def _groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Jobs that can share one pass over their images stay together: one evaluator, all subjects."""
        groups: dict[str, list[Job]] = {}
        for job in jobs:
            groups.setdefault(f"evaluator {job.evaluator}" if self._is_shared(job) else job.name, []).append(job)
        return list(groups.values())

    def run_jobs(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Run or skip jobs of one evaluator; a failure becomes a failed record with its error."""
        todo: list[Evaluation] = []
        for job in jobs:
            made, error = attempt(partial(self._start, job))
            if isinstance(made, Evaluation):
                todo.append(made)
            else:
                yield self._result(job, "done" if made else "skipped", error)
        if todo:
            status, error = attempt(lambda: self._measure(todo))
            for evaluation in todo:
                yield self._result(evaluation.job, status or "failed", error)

    def _result(self, job: Job, status: Status, error: str) -> JobResult:
        if error:
            self._record_failure(job, error)
            return JobResult(job=job, status="failed", error=error)
        shutil.rmtree(self._failure_folder(job), ignore_errors=True)
        return JobResult(job=job, status=status)

    def status(self, job: Job) -> str:
        """How a job stands: ``finished``, ``partial``, ``to do``, ``waits`` for a checkpoint, or ``missing: WHAT``."""
        try:
            if job.kind == "pretrain":
                folder = self.subjects.pretraining(job.subject)[1]
                return "finished" if (folder / "checkpoint" / "meta.json").exists() else "to do"
            self.fingerprint(self.benchmark.evaluators[job.evaluator])
            if any(self.status(j) != "finished" for j in self.jobs if j.name in job.needs):
                return "waits"
            folder = self.evaluation(job).folder
        except (ValueError, OSError) as error:
            return f"missing: {one_sentence(error)}"
        return "finished" if is_finished(folder) else "partial" if is_finished(folder / PARTIAL) else "to do"

    def fingerprint(self, evaluator: Evaluator) -> str:
        """Fingerprint of all that an evaluator reads."""
        return stable_hash([self.fingerprint_of(*pair) for pair in evaluator.reads(self.benchmark.data)])

    def fingerprint_of(self, data: Data, split: str) -> str:
        """Fingerprint of a split, which is looked through once."""
        if (data, split) not in self._prints:
            self._prints[data, split] = ImageSet(data, split).fingerprint
        return self._prints[data, split]

    def _pretrain(self, job: Job) -> bool:
        """Make a checkpoint; False if it is there."""
        source, folder, key = self.subjects.pretraining(job.subject)
        done = (folder / "checkpoint" / "meta.json").exists()
        pretrain(source, folder, key)
        return not done

    def evaluation(self, job: Job) -> Evaluation:
        """Folder, key, protocol and weights of an evaluation.

        Raises:
            ValueError: If the evaluator takes a backbone and the subject is a classifier.
        """
        evaluator, checkpoint = self.benchmark.evaluators[job.evaluator], self.subjects.checkpoint(job.subject)
        if evaluator.needs == "classifier" and checkpoint.meta.kind == "backbone":
            tuned = next(j for j in self.jobs if j.name == job.needs[-1])
            checkpoint = load_checkpoint(self.evaluation(tuned).folder / CLASSIFIER)
        if evaluator.needs == "backbone" and checkpoint.meta.kind == "classifier":
            raise ValueError(
                f"{job.evaluator} takes a pre-trained backbone, "
                f"and {job.subject} is a fine-tuned classifier; give its parent checkpoint"
            )
        protocol, print_ = protocol_info(evaluator), self.fingerprint(evaluator)
        key = job_key(weights=checkpoint.meta.identity, protocol=protocol, data=print_, seed=self.benchmark.seed)
        folder = self.subjects.folder(job.subject) / f"{safe_name(job.evaluator)}-{key[:12]}"
        return Evaluation(
            job=job, evaluator=evaluator, folder=folder, key=key, protocol=protocol, checkpoint=checkpoint
        )

    def _start(self, job: Job) -> Evaluation | bool | None:
        """Make a checkpoint (False: it is there), or prepare an evaluation (None: it is there)."""
        return self._pretrain(job) if job.kind == "pretrain" else self._prepare(job)

    def _prepare(self, job: Job) -> Evaluation | None:
        """The evaluation to carry out; ``None`` if its records exist."""
        evaluation = self.evaluation(job)
        enough = evaluation.folder / PARTIAL if self.benchmark.machine.subset_only else evaluation.folder
        if is_finished(evaluation.folder) or is_finished(enough):
            self.keys.add(evaluation.key)
            return None
        self.subjects.remarks(job.subject)  # before anything is measured: what may fail here must not cost a number
        if isinstance(evaluation.evaluator, SetEvaluator):
            evaluation.evaluator.check(self._model(evaluation), self._context(evaluation))
        return evaluation

    def _model(self, evaluation: Evaluation) -> Backbone:
        from cim_bench.engine.devices import make_accelerator
        from cim_bench.models.backbone import load_backbone

        device = make_accelerator(self.benchmark.machine).device
        return load_backbone(evaluation.checkpoint, what=evaluation.job.subject).to(device)

    def _context(self, evaluation: Evaluation) -> Context:
        if is_main():
            evaluation.folder.mkdir(parents=True, exist_ok=True)
        return Context(
            data=self.benchmark.data,
            machine=self.benchmark.machine,
            seed=self.benchmark.seed,
            folder=evaluation.folder,
            subject=evaluation.checkpoint.meta,
            key=evaluation.key,
            protocol=evaluation.protocol,
            main=is_main(),
        )

    def _measure(self, todo: Sequence[Evaluation]) -> Status:
        """Measure and record; one evaluation, or several that share their images."""
        from cim_bench.jobs.passes import measurements, passes

        started, evaluator = time.monotonic(), todo[0].evaluator
        contexts = {e.job.subject: self._context(e) for e in todo}
        models = {e.job.subject: self._model(e) for e in todo}
        if not isinstance(evaluator, SetEvaluator):
            (only,) = todo
            context = contexts[only.job.subject]
            self._write(only, list(evaluator.run(models[only.job.subject], context)), context, started)
            return "done"
        for parts in passes(evaluator, models, contexts):
            is_subset = parts[-1].subset
            for e in todo:
                context = contexts[e.job.subject]
                self._write(e, measurements(evaluator, context, parts), context, started, partial=is_subset)
            if is_subset and self.benchmark.machine.subset_only:
                return "partial"
        return "done"

    def _write(
        self,
        evaluation: Evaluation,
        found: Sequence[Measurement],
        context: Context,
        started: float,
        *,
        partial: bool = False,
    ) -> None:
        """Write a job's records, those of a subset into a folder of their own."""
        if not found:
            raise ValueError(f"{evaluation.job.evaluator} measured nothing")
        folder = evaluation.folder / PARTIAL if partial else evaluation.folder
        self.keys.add(evaluation.key)
        if not is_main() or (folder / RECORDS_FILE).exists():
            return
        common: dict[str, Any] = {
            "key": evaluation.key,
            "subject": subject_info(evaluation.job.subject, evaluation.checkpoint.meta),
            "protocol": protocol_info(evaluation.evaluator, partial=partial),
            "provenance": self._provenance(
                duration_s=time.monotonic() - started, data=self.fingerprint(evaluation.evaluator)
            ),
            "warnings": (*self.subjects.remarks(evaluation.job.subject), *context.warnings),
        }
        write_records(folder, [Record(measurement=measurement, **common) for measurement in found])

    def _provenance(self, **known: Any) -> Provenance:
        return Provenance(
            source="measured",
            seed=self.benchmark.seed,
            time=utc_now(),
            micro_batch=self.benchmark.machine.micro_batch,
            device=device_name(self.benchmark.machine.device),
            **describe_code(),
            **known,
        )

    def _failure_folder(self, job: Job) -> Path:
        return self.subjects.folder(job.subject) / f"{safe_name(job.evaluator or 'pretrain')}-failed"

    def _record_failure(self, job: Job, error: str) -> None:
        if job.kind == "pretrain" or not is_main():
            return
        record = Record(
            key="",
            subject=self.subjects.info(job.subject),
            protocol=protocol_info(self.benchmark.evaluators[job.evaluator]),
            provenance=self._provenance(status="failed", error=error),
            measurement=None,
        )
        write_records(self._failure_folder(job), [record])


def attempt(work: Callable[[], T]) -> tuple[T | None, str]:
    """What `work` returns and "", or ``None`` and its error: a failed job must not take the others with it."""
    try:
        return work(), ""
    except Exception as error:  # jobs may fail in any way (files that nobody vouches for too: formats/weights_file.py)
        if os.environ.get("CIM_BENCH_DEBUG"):
            raise
        return None, one_sentence(error)
