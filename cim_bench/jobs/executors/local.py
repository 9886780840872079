"""Runs jobs one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class LocalExecutor:
    """One task after another in this process (which may be one of several that `accelerate launch` started)."""

    def execute(self, ready: Sequence[Task], run: Callable[[Task], Iterable[Result]]) -> Iterator[Result]:
        """Results of independent tasks, as they finish; a task may be several jobs that share their images."""
        for task in ready:
            yield from run(task)
