"""Which jobs of a graph can start next: no waves, a job starts as soon as its own needs are met."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cim_bench.contracts.executor import Graph, Job, JobResult


class JobQueue:
    """The jobs of a graph that have not ended, for executors.

    Args:
        graph: Its records say what is finished.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.waiting = {job.name: job for job in graph.jobs}
        self.running: dict[str, Job] = {}
        self.results: dict[str, JobResult] = {}
        self.rank = {name: -count for name, count in dependants(graph.jobs).items()}

    @property
    def done(self) -> bool:
        """True once every job has ended."""
        return not self.waiting and not self.running

    def settle(self) -> Iterator[JobResult]:
        """End the jobs that need no run: those whose needs failed, and those whose records exist."""
        changed = True
        while changed:
            changed = False
            for job in list(self.waiting.values()):
                failed = [need for need in job.needs if self._has(need, "failed", "blocked")]
                result = self.graph.block(job, failed) if failed else None
                if result is None and self._is_ready(job):
                    result = self.graph.finished(job)
                if result is not None:
                    self.end(result)
                    changed = True
                    yield result

    def take(self, fits: Callable[[Job], bool] = lambda _: True) -> list[Job]:
        """Jobs to start together now, or none; call it while there is room for more.

        Those that most others need come first. Jobs that can share a pass wait for each other as long as anything
        else can be started.

        Args:
            fits: Whether there is room for a job.
        """
        ready = sorted((job for job in self.waiting.values() if self._is_ready(job)), key=lambda j: self.rank[j.name])
        groups = [[job] if not job.shares else [j for j in ready if j.shares == job.shares] for job in ready]
        fitting = [group for group in groups if fits(group[0])]
        whole = [group for group in fitting if not self._is_early(group)]
        chosen = next(iter(whole or fitting), [])
        for job in chosen:
            self.running[job.name] = self.waiting.pop(job.name)
        return chosen

    def end(self, result: JobResult) -> None:
        """Note how a job ended."""
        self.waiting.pop(result.job.name, None)
        self.running.pop(result.job.name, None)
        self.results[result.job.name] = result

    def _has(self, name: str, *statuses: str) -> bool:
        return name in self.results and self.results[name].status in statuses

    def _is_ready(self, job: Job) -> bool:
        return all(self._has(need, "done", "skipped") for need in job.needs)

    def _is_early(self, group: Sequence[Job]) -> bool:
        """True if a job that could share this group's pass is not ready yet."""
        shares = group[0].shares
        return bool(shares) and sum(job.shares == shares for job in self.waiting.values()) > len(group)


def dependants(jobs: Sequence[Job]) -> dict[str, int]:
    """How many jobs need each job, directly or not.

    Args:
        jobs: Each after those that it needs.
    """
    needed_by: dict[str, set[str]] = {job.name: set() for job in jobs}
    for job in reversed(jobs):
        for need in job.needs:
            if need in needed_by:
                needed_by[need] |= {job.name} | needed_by[job.name]
    return {name: len(found) for name, found in needed_by.items()}
