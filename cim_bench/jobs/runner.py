"""Carries out a benchmark's plan: skips what is finished, records what fails, never touches a finished number."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from cim_bench.benchmark import Benchmark
from cim_bench.common.errors import one_sentence
from cim_bench.common.files import check_writable
from cim_bench.common.streams import say
from cim_bench.contracts.executor import Job, JobResult, Status
from cim_bench.contracts.features import FeatureEvaluator
from cim_bench.engine.devices import is_main, make_accelerator
from cim_bench.engine.inference import NonFiniteOutputError
from cim_bench.jobs.evaluation import Evaluations
from cim_bench.jobs.fitting import check_subjects
from cim_bench.jobs.plan import is_absent, left_out, make_plan, select_jobs
from cim_bench.jobs.pretraining import pretrain
from cim_bench.jobs.resolved import loads, write_benchmark
from cim_bench.jobs.state import Evaluation, JobStates

T = TypeVar("T")


@dataclass
class Runner:
    """One benchmark in one output folder: the graph that an executor is given (`cim_bench.contracts.executor.Graph`).

    Attributes:
        benchmark: What to do.
        output: Where its jobs keep their folders.
        only_jobs: Patterns of the jobs to run, with those that they need; none for all.
    """

    benchmark: Benchmark
    output: Path
    only_jobs: Sequence[str] = ()

    @cached_property
    def jobs(self) -> list[Job]:
        """The jobs to run, dependencies first."""
        absent = [name for name, source in self.benchmark.subjects.items() if is_absent(source)]
        return select_jobs(make_plan(self.benchmark), self.only_jobs, absent)

    @cached_property
    def states(self) -> JobStates:
        """What the output folder tells of the jobs."""
        return JobStates(self.benchmark, self.output, {job.name: job for job in self.jobs})

    @property
    def left_out(self) -> list[str]:
        """What subjects with jobs do not pass through, a sentence each."""
        return left_out(self.benchmark, {job.subject for job in self.jobs})

    def check(self) -> None:
        """Refuse pretexts that do not fit their architectures, before anything is planned or run.

        Raises:
            ValueError: Naming the subject.
        """
        check_subjects(self.benchmark, dict.fromkeys(job.subject for job in self.jobs))

    def run(self, on_end: Callable[[JobResult], None] = lambda _: None) -> dict[str, JobResult]:
        """Have the benchmark's executor run every job whose needs are met.

        Args:
            on_end: Called with each result as soon as it is known.

        Returns:
            How each job ended, by name.

        Raises:
            OSError: If the output folder cannot be written.
            ValueError: If a pretext and its architecture, or the executor's settings and the jobs or this machine, do
                not fit together.
        """
        self.check()
        check_writable(self.output)
        if is_main():
            write_benchmark(self.benchmark, self.output)
            for sentence in self.left_out:
                say(sentence)
        results: dict[str, JobResult] = {}
        for result in self.benchmark.executor.execute(self):
            results[result.job.name] = result
            on_end(result)
        return results

    def keys(self) -> set[str]:
        """Keys of the evaluations of this run that have records, whoever made them."""
        return self.states.keys(self.jobs)

    @cached_property
    def _resolved(self) -> tuple[Path, list[str]]:
        """The benchmark's file, and what a process must load before it can read it."""
        needed = loads(self.benchmark)
        return write_benchmark(self.benchmark, self.output), needed

    @property
    def only_here(self) -> str:
        """Why no other process can run these jobs; empty if any can."""
        try:
            loads(self.benchmark)
        except ValueError as error:
            return str(error)
        return ""

    def command(self, jobs: Sequence[Job], *, follow: bool = False) -> list[str]:
        """The command that runs some jobs, in this order."""
        file, needed = self._resolved
        processes = jobs[0].resources.processes if jobs else 1
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        names = [name for module in needed for name in ("--load", module)] + [job.name for job in jobs]
        # a checkout in the working directory must not be taken for the installed package, unless it is what runs here
        safe = [] if Path(__file__).resolve().parents[2] == Path.cwd() else ["-P"]
        start = [sys.executable, *safe, *(launch if processes > 1 else ()), "-m", "cim_bench.cli", "job"]
        return [*start, str(file), *names, *(["--follow"] if follow else ())]

    def finished(self, job: Job) -> JobResult | None:
        """``skipped`` if a job whose needs are met has its records already; else ``None``."""
        progress, error = attempt(lambda: self.states.progress(job))
        if error or progress is None or not self.states.is_enough(progress):
            return None
        self.states.clear_failures([job])
        return JobResult(job=job, status="skipped")

    def ended(self, job: Job, death: str = "") -> JobResult:
        """How a job ended whose process has exited, as its records tell."""
        progress, unreadable = attempt(lambda: self.states.progress(job))
        if progress == "finished" or (progress == "partial" and not death):
            return JobResult(job=job, status="done" if progress == "finished" else "partial")
        error = death or self.states.failure(job) or unreadable or "its process left no records"
        if error != self.states.failure(job):
            self._record_failure(job, error)
        return JobResult(job=job, status="failed", error=error)

    def block(self, job: Job, needs: Sequence[str]) -> JobResult:
        """Record that a job cannot run because jobs that it needs failed."""
        self._record_failure(job, f"blocked: {', '.join(needs)} failed")
        return JobResult(job=job, status="blocked", error=f"needs {' and '.join(needs)}")

    def run_here(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Run or skip jobs in this process; a failure becomes a failed record with its error.

        Args:
            jobs: One, or several that share a pass.
        """
        self.states.clear_failures(jobs)
        todo: list[Evaluation] = []
        for job in jobs:
            made, error = attempt(partial(self._start, job))
            if isinstance(made, Evaluation):
                todo.append(made)
            else:
                yield self._result(job, "done" if made else "skipped", error)
        if todo:
            odd: dict[str, str] = {}
            status, error = attempt(lambda: self._measure(todo, odd))
            make_accelerator(self.benchmark.machine).wait_for_everyone()  # before another process looks for records
            for job in (evaluation.job for evaluation in todo):
                yield self._result(job, status or "failed", odd.get(job.subject, error))

    def _start(self, job: Job) -> Evaluation | bool | None:
        """Make a checkpoint (False: it is there), or prepare an evaluation (None: it is there)."""
        if job.kind == "pretrain":
            finished = self.states.progress(job) == "finished"
            pretrain(*self.states.subjects.pretraining(job.subject))
            return not finished
        if self.states.is_enough(self.states.progress(job)):
            return None
        evaluation = self.states.evaluation(job)
        Evaluations(self.states).prepare(evaluation)
        return evaluation

    def _measure(self, todo: Sequence[Evaluation], odd: dict[str, str]) -> Status:
        """Measure together; a model that fails alone is left out, its error in `odd`."""
        evaluations = Evaluations(self.states)
        if isinstance(todo[0].evaluator, FeatureEvaluator) and len(todo) > 1:
            evaluations.extract(todo)
            for e in todo:
                _, odd[e.job.subject] = attempt(partial(evaluations.measure, [e]))
            return "done"
        while True:
            try:
                return evaluations.measure([e for e in todo if e.job.subject not in odd])
            except NonFiniteOutputError as error:
                if len(todo) - len(odd) < 2:
                    raise
                odd[error.model] = one_sentence(error)

    def _result(self, job: Job, status: Status, error: str) -> JobResult:
        if not error:
            return JobResult(job=job, status=status)
        self._record_failure(job, error)
        return JobResult(job=job, status="failed", error=error)

    def _record_failure(self, job: Job, error: str) -> None:
        """Keep an error; where that fails too, as on a full disk, it is only told, and the other jobs go on."""
        attempt(lambda: self.states.record_failure(job, error))


def attempt(work: Callable[[], T]) -> tuple[T | None, str]:
    """What `work` returns and "", or ``None`` and its error: a failed job must not take the others with it."""
    try:
        return work(), ""
    except Exception as error:  # jobs may fail in any way (files that nobody vouches for too: formats/weights_file.py)
        if os.environ.get("CIM_BENCH_DEBUG"):
            raise
        return None, one_sentence(error)
