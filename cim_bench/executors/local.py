"""Runs jobs on this machine: one after another in this process, or several side by side in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cim_bench.common.cores import machine_cores
from cim_bench.common.progress import Board
from cim_bench.common.ranges import Positive
from cim_bench.contracts.executor import Executor, Graph, JobResult
from cim_bench.contracts.queue import JobQueue
from cim_bench.engine.devices import free_memory_gb, gpu_count, process_count
from cim_bench.executors.slots import Slots

MOST_ON_CPU = 4  # slots by default: beyond these, a job's own threads use the cores better


@dataclass(frozen=True, kw_only=True)
class LocalExecutor(Executor):
    """Jobs on this machine, side by side in slots.

    Attributes:
        slots: Jobs at a time, each in a process of its own with its share of the cores and its own GPU. 1 runs them one
            after another in this process. ``None``: one for each GPU, or on the CPU one for each core up to four, and
            no more than fit into memory.
    """

    slots: Positive | None = None

    def execute(self, graph: Graph) -> Iterator[JobResult]:
        """Run all jobs; a slot that dies fails the jobs that it was running, and is replaced.

        Raises:
            ValueError: If this machine cannot give as many slots, or a job wants more processes than there are slots.
        """
        count = self._count(graph)
        yield from _one_after_another(graph) if count == 1 else _side_by_side(graph, count, _gpus(graph))

    def _count(self, graph: Graph) -> int:
        gpus = _gpus(graph)
        most, what = (gpus, "GPUs") if gpus else (machine_cores(), "cores")
        if self.slots is not None and self.slots > most:
            raise ValueError(f"executor.slots is {self.slots} and this machine has {most} {what}; choose 1 to {most}")
        alone = "accelerate or torchrun started several processes of this command" if process_count() > 1 else ""
        if reason := alone or graph.only_here:
            if self.slots is not None and self.slots > 1:
                raise ValueError(f"executor.slots is {self.slots}, but {reason}; set it to 1")
            return 1
        largest = max((job.resources.processes for job in graph.jobs), default=1)
        count = self.slots or _by_default(graph, gpus, largest)
        if largest > count:
            wanting = next(job.name for job in graph.jobs if job.resources.processes == largest)
            raise ValueError(
                f"{wanting} wants {largest} processes and there are {count} slots; set executor.slots to {largest} or "
                "more, or machine.processes to less"
            )
        return count


def _gpus(graph: Graph) -> int:
    """GPUs that the jobs can use."""
    return gpu_count() if any(job.resources.gpus for job in graph.jobs) else 0


def _by_default(graph: Graph, gpus: int, largest: int) -> int:
    """As many slots as use the machine well."""
    if len(graph.jobs) < 2 and largest == 1:
        return 1
    if gpus:
        return gpus
    memory = max((job.resources.memory_gb for job in graph.jobs), default=0.0)
    fitting = int(free_memory_gb() // memory) if memory else MOST_ON_CPU
    return max(1, min(machine_cores(), MOST_ON_CPU, fitting))


def _one_after_another(graph: Graph) -> Iterator[JobResult]:
    queue = JobQueue(graph)
    while not queue.done:
        yield from queue.settle()
        for result in graph.run_here(queue.take()):
            queue.end(result)
            yield result


def _side_by_side(graph: Graph, count: int, gpus: int) -> Iterator[JobResult]:
    queue = JobQueue(graph)
    with Board() as board, Slots(graph, count, gpus, board) as slots:
        while not queue.done:
            yield from queue.settle()
            while batch := queue.take(lambda job: slots.have_room(job.resources.processes)):
                slots.start(batch)
            if queue.running:
                for result in slots.wait():
                    queue.end(result)
                    yield result
