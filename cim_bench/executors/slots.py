"""Slots of this machine: processes that run batches of jobs, and what they tell while they do."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cim_bench.common.progress import PREFIX, Board
from cim_bench.contracts.executor import Graph, Job, JobResult
from cim_bench.executors.environment import slot_environment

SAVING_S = 30.0  # what a process may take to finish its step and save, once it is asked to end


@dataclass(frozen=True)
class _Event:
    """A line that a process wrote, or its end."""

    worker: Worker
    line: str | None


class Worker:
    """A process that runs batches of jobs, with a thread that reads what it writes.

    Its streams come through one pipe, so that a line is never taken for one of the batch before or after.

    Args:
        command: What to start.
        environment: Of the process.
        slots: The slots that it takes.
        events: Where its lines and its end are put.
    """

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], slots: Sequence[int], events: queue.Queue[_Event]
    ) -> None:
        self.slots, self.events = tuple(slots), events
        self.jobs: list[Job] = []
        self.label = f"slot {self.slots[0] + 1}"  # what lines of progress call its work, or its last work
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def take(self, jobs: list[Job]) -> None:
        """Note the jobs that it works on from now on."""
        self.jobs = jobs
        self.label = jobs[0].name + (f" and {len(jobs) - 1} more" if len(jobs) > 1 else "")

    def send(self, jobs: Sequence[Job]) -> None:
        """Give it jobs to run together."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps([job.name for job in jobs]) + "\n")
            self.process.stdin.flush()
        except OSError:  # it died since its last batch: its end is among the events
            pass

    def ask_to_end(self) -> None:
        """Let it end; a training that it is at work on is saved."""
        assert self.process.stdin is not None
        if self.jobs:
            self.process.terminate()  # and keep its input open, at whose end it would end without saving
        else:
            self.process.stdin.close()

    def wait(self) -> None:
        """Wait until it has ended, or end it."""
        try:
            self.process.wait(timeout=SAVING_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(_Event(self, line.rstrip()))
        self.process.wait()
        self.events.put(_Event(self, None))


class Slots:
    """The slots of this machine; use as a context manager, which ends their processes.

    Args:
        graph: Whose jobs they run.
        count: How many there are.
        gpus: Of this machine; 0 for slots without one.
        board: Where progress is shown.
    """

    def __init__(self, graph: Graph, count: int, gpus: int, board: Board) -> None:
        self.graph, self.count, self.gpus, self.board = graph, count, gpus, board
        self.idle = list(range(count))
        self.workers: dict[int, Worker] = {}  # that wait for work or do it, by their first slot
        self.events: queue.Queue[_Event] = queue.Queue()

    def __enter__(self) -> Slots:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.ask_to_end()
        for worker in self.workers.values():
            worker.wait()

    def have_room(self, processes: int) -> bool:
        """Whether a job of as many processes can start now."""
        return len(self.idle) >= processes

    def start(self, jobs: list[Job]) -> None:
        """Run some jobs together in as many idle slots as they want processes."""
        processes = jobs[0].resources.processes
        taken, self.idle = sorted(self.idle)[:processes], sorted(self.idle)[processes:]
        environment = slot_environment(taken, self.count, self.gpus)
        if processes > 1:  # they start together and end together
            for slot in taken:
                if slot in self.workers:
                    idle = self.workers.pop(slot)
                    idle.ask_to_end()
                    idle.wait()
            worker = Worker(self.graph.command(jobs), environment, taken, self.events)
        else:
            worker = self.workers.get(taken[0]) or Worker(
                self.graph.command((), follow=True), environment, taken, self.events
            )
            worker.send(jobs)
        worker.take(jobs)
        self.workers[taken[0]] = worker

    def wait(self) -> Iterator[JobResult]:
        """Pass progress on until some jobs have ended, and say how."""
        while True:
            event = self.events.get()
            worker = event.worker
            if self.workers.get(worker.slots[0]) is not worker:
                continue  # of a process that was closed
            if event.line is None:
                self.workers.pop(worker.slots[0])
                yield from self._end(worker, _death(worker))
                return
            if self._heard(worker, event.line):
                yield from self._end(worker, "")
                return

    def _heard(self, worker: Worker, line: str) -> bool:
        """Show what a worker tells; true if it says that its batch has ended."""
        if not line.startswith(PREFIX):
            self.board.line(worker.label, line)
            return False
        told: dict[str, Any] = json.loads(line.removeprefix(PREFIX))
        if "progress" in told:
            self.board.show(worker.label, *told["progress"])
        return bool(told.get("idle")) and bool(worker.jobs)

    def _end(self, worker: Worker, death: str) -> Iterator[JobResult]:
        self.board.clear(worker.label)
        jobs, worker.jobs = worker.jobs, []
        if jobs:
            self.idle += worker.slots
        for job in jobs:
            yield self.graph.ended(job, death)


def _death(worker: Worker) -> str:
    """How a process died; empty if it ended by itself."""
    status = worker.process.returncode
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}"
    if status in (0, 1) and len(worker.slots) > 1:
        return ""  # the command of its batch came to its end
    return f"its process ended with status {status}"
