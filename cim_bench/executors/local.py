"""Runs jobs one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class LocalExecutor:
    """One job after another in this process (which may be one of several that `accelerate launch` started)."""

    def execute(self, ready: Sequence[Task], run: Callable[[Task], Result]) -> Iterator[Result]:
        """Results of independent jobs, as they finish."""
        for task in ready:
            yield run(task)
