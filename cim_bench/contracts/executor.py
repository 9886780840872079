"""What runs the jobs of a plan, and what it is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Job:
    """One unit of work that is run, skipped or fails as a whole.

    Attributes:
        name: ``SUBJECT/pretrain`` or ``SUBJECT/EVALUATOR``.
        kind: What it does.
        subject: Row of the benchmark.
        evaluator: Its name in the benchmark; empty for pre-training.
        needs: Names of jobs that must finish first.
    """

    name: str
    kind: Literal["pretrain", "evaluate"]
    subject: str
    evaluator: str = ""
    needs: tuple[str, ...] = ()
