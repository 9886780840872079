"""What runs the jobs of a benchmark, and what it is given: the whole graph, and how to run and to read each job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from cim_bench.spec import PlugIn

Status = Literal["done", "partial", "skipped", "failed", "blocked"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one job wants.

    Attributes:
        processes: Processes that compute it together.
        gpus: One for each process, where the machine has any; 0 for jobs that stay on the CPU.
        memory_gb: Main memory of all its processes, in GB (10^9 bytes).
    """

    processes: int = 1
    gpus: int = 0
    memory_gb: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One unit of work that is run, skipped or fails as a whole.

    Attributes:
        name: ``SUBJECT/pretrain`` or ``SUBJECT/EVALUATOR``.
        kind: What it does.
        subject: Row of the benchmark.
        evaluator: Its name in the benchmark; empty for pre-training.
        needs: Names of jobs that must finish first.
        shares: Jobs with the same text here can share one pass over their images if they are started together;
            empty where nothing is shared.
        resources: What it wants.
    """

    name: str
    kind: Literal["pretrain", "evaluate"]
    subject: str
    evaluator: str = ""
    needs: tuple[str, ...] = ()
    shares: str = ""
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """How a job ended.

    Attributes:
        job: Which one.
        status: ``done`` now, ``skipped`` because its records exist, ``partial`` after its subset as asked for,
            ``failed``, or ``blocked`` by a failed job that it needs.
        error: One sentence, for the last two.
    """

    job: Job
    status: Status
    error: str = ""


class Graph(Protocol):
    """The jobs of one benchmark in one output folder. What is finished is read from the records there."""

    output: Path

    @property
    def jobs(self) -> Sequence[Job]:
        """All jobs to run, each after those that it needs."""
        ...

    @property
    def only_here(self) -> str:
        """Why no other process can run these jobs, such as a class defined in a notebook; empty if any can."""
        ...

    def command(self, jobs: Sequence[Job], *, follow: bool = False) -> list[str]:
        """The command that runs some jobs, in this order, with as many processes as they want.

        Args:
            jobs: Several only if they share a pass. The command's exit status is 0 if all of them ended well.
            follow: For jobs of one process: read further jobs from standard input, one JSON list of names a line, and
                tell progress and ends of batches on standard output (`cim_bench.jobs.worker.follow`).
        """
        ...

    def run_here(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Run some jobs in this process."""
        ...

    def finished(self, job: Job) -> JobResult | None:
        """``skipped`` if a job whose needs are met has its records already; else ``None``."""
        ...

    def ended(self, job: Job, death: str = "") -> JobResult:
        """How a job ended whose process has exited, as its records tell.

        Args:
            job: Which one.
            death: How its process died, if it did; recorded as the job's error if it left no records.
        """
        ...

    def block(self, job: Job, needs: Sequence[str]) -> JobResult:
        """Record that a job cannot run because jobs that it needs failed."""
        ...


class Executor(PlugIn):
    """Contract of what runs a graph of jobs; subclasses are frozen keyword-only dataclasses of their settings."""

    def execute(self, graph: Graph) -> Iterator[JobResult]:
        """Run all jobs, each once its needs have ended well, and yield how each ended as soon as that is known.

        `cim_bench.contracts.queue.JobQueue` says what can start next. A failure fails its own job alone.

        Raises:
            ValueError: If the settings do not fit the graph or the machine; before any job is started.
        """
        raise NotImplementedError
