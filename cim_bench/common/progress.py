"""Progress: a bar with ETA on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_EVERY_S = 15.0


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
        self.show, self.bar = show, None
        self.started = self.printed = time.monotonic()
        if show and sys.stderr.isatty():
            from rich.console import Console

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task(title, total=total, completed=start, note="")

    def __enter__(self) -> Meter:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, units: int = 1, note: str = "") -> None:
        """Count finished units and show a short note such as the loss."""
        self.done += units
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.task, advance=units, note=note)
        elif self.show and now - self.printed >= PLAIN_EVERY_S:
            self.printed = now
            left = (now - self.started) / max(1, self.done - self.begun_at) * (self.total - self.done)
            print(
                f"{self.title}: {self.done}/{self.total}, {left:.0f} s left {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )
