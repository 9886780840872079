"""The log of a training: ``metrics.jsonl`` and TensorBoard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

LOG = "metrics.jsonl"


class TrainingLog:
    """Log to ``metrics.jsonl`` and TensorBoard; use as a context manager.

    Args:
        folder: The job's.
        start: First step of this run; lines of that step and later ones, which a killed run left, are removed, and so
            are those that tell no step.
        main: Whether this process writes.
    """

    def __init__(self, folder: Path, start: int, main: bool) -> None:
        self.main, self.path = main, folder / LOG
        if main:
            lines = self.path.read_text(errors="replace").splitlines() if self.path.exists() else []
            kept = [line for line in lines if 0 <= _step(line) < start]
            self.path.write_text("".join(line + "\n" for line in kept))
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self.main:
            with self._named():
                self.board.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append one line, and one point of each value's curve."""
        if not self.main:
            return
        with self._named():
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
            for key, value in values.items():
                self.board.add_scalar(key, value, step)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """An error of a full disk names the log; the operating system tells no name where an open file is written."""
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno, f"cannot write {self.path} and the curves beside it: {error.strerror}; free space"
            ) from error


def read_log(folder: Path, name: str) -> list[tuple[int, float]]:
    """Step and value of each line of a job's log that has a value of that name."""
    path = folder / LOG
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    values = [json.loads(line) for line in lines if _step(line) >= 0]
    return [(value["step"], value[name]) for value in values if name in value]


def _step(line: str) -> int:
    """The step of a line; -1 if it tells none."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return -1
    return step if isinstance(step, int) else -1
