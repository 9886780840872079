"""Progress: a bar with ETA on a terminal, a plain line now and then elsewhere; of several jobs, a line for each."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cim_bench.common.streams import say

PLAIN_EVERY_S = 15.0
EVENT_EVERY_S = 0.5
PREFIX = "cim-bench-job: "  # begins a line that one process writes for another to read, a JSON object

_listener: TextIO | None = None  # who draws the progress of this process, if another process does


def tell(stream: TextIO, **what: object) -> None:
    """Write one line for another process to read."""
    print(PREFIX + json.dumps(what), file=stream, flush=True)


def report_progress_to(stream: TextIO) -> None:
    """Have every `Meter` of this process `tell` ``progress=[title, done, total, note]`` on a stream."""
    global _listener
    _listener = stream


def make_bars() -> Progress:
    """Bars on the terminal behind standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )


class Meter:
    """Counts finished units of one task; use as a context manager.

    Args:
        title: Name of the task.
        total: Units until it ends.
        start: Units that an earlier run finished.
        show: Whether anything is printed; False on all but the main process.
    """

    def __init__(self, title: str, total: int, *, start: int = 0, show: bool = True) -> None:
        self.title, self.total, self.done, self.begun_at = title, total, start, start
        self.show, self.bars = show, None
        self.started = self.printed = time.monotonic()
        if show and _listener is None and sys.stderr.isatty():
            self.bars = make_bars()
            self.task = self.bars.add_task(title, total=total, completed=start, note="")

    def __enter__(self) -> Meter:
        if self.bars is not None:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def step(self, units: int = 1, note: str = "") -> None:
        """Count finished units and show a short note such as the loss."""
        self.done += units
        if self.bars is not None:
            self.bars.update(self.task, advance=units, note=note)
        elif self.show:
            self._tell(note)

    def _tell(self, note: str) -> None:
        now, every = time.monotonic(), PLAIN_EVERY_S if _listener is None else EVENT_EVERY_S
        if now - self.printed < every:
            return
        self.printed = now
        if _listener is not None:
            tell(_listener, progress=[self.title, self.done, self.total, note])
            return
        left = (now - self.started) / max(1, self.done - self.begun_at) * (self.total - self.done)
        say(plain_line(self.title, self.done, self.total, left, note))


@dataclass
class _Row:
    """What one job is doing now."""

    title: str
    started: float = field(default_factory=time.monotonic)
    begun_at: int = 0
    printed: float = field(default_factory=time.monotonic)
    task: TaskID | None = None


class Board:
    """Progress of several jobs side by side: bars on a terminal, plain lines that name the job elsewhere."""

    def __init__(self) -> None:
        self.bars = make_bars() if sys.stderr.isatty() else None
        self.rows: dict[str, _Row] = {}

    def __enter__(self) -> Board:
        if self.bars is not None:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def show(self, job: str, title: str, done: int, total: int, note: str = "") -> None:
        """Where a job stands in its present task."""
        row = self.rows.get(job)
        if row is None or row.title != title:
            self.clear(job)
            row = self.rows[job] = _Row(title, begun_at=done)
            if self.bars is not None:
                row.task = self.bars.add_task(f"{job}: {title}", total=total, completed=done, note=note)
        now = time.monotonic()
        if self.bars is not None and row.task is not None:
            self.bars.update(row.task, completed=done, note=note)
        elif now - row.printed >= PLAIN_EVERY_S:
            row.printed = now
            left = (now - row.started) / max(1, done - row.begun_at) * (total - done)
            self.line(job, plain_line(title, done, total, left, note))

    def clear(self, job: str) -> None:
        """Forget a job that has ended."""
        row = self.rows.pop(job, None)
        if row is not None and row.task is not None and self.bars is not None:
            self.bars.remove_task(row.task)

    def line(self, job: str, text: str) -> None:
        """A line of a job's own standard error."""
        say(f"{job}: {text}")


def plain_line(title: str, done: int, total: int, left_s: float, note: str) -> str:
    """One line of progress: ``photos/val: 64/450, 3 s left``."""
    return f"{title}: {done}/{total}, {left_s:.0f} s left {note}".rstrip()
