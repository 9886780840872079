"""From a benchmark to its graph of jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cim_bench import registry
from cim_bench.recipe import Benchmark, FromCheckpoint, Pretraining


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


def make_plan(benchmark: Benchmark) -> list[Job]:
    """All jobs of a benchmark, dependencies first.

    An evaluator that needs a classifier waits for the subject's fine-tuning. A subject that is a classifier
    itself goes straight to these; evaluators of backbones are left out where it has others.

    Raises:
        ValueError: If an evaluator needs a classifier and the benchmark has no ``finetune``.
    """
    jobs: list[Job] = []
    tuned = [name for name, e in benchmark.evaluators.items() if registry.name_of("evaluators", type(e)) == "finetune"]
    ordered = sorted(benchmark.evaluators.items(), key=lambda item: item[1].needs == "classifier")
    for subject, source in benchmark.subjects.items():
        made: tuple[str, ...] = ()
        if isinstance(source, Pretraining):
            made = (f"{subject}/pretrain",)
            jobs.append(Job(name=made[0], kind="pretrain", subject=subject))
        is_classifier = isinstance(source, FromCheckpoint) and _kind(source) == "classifier"
        fits = [(name, e) for name, e in ordered if e.needs == "classifier" or not is_classifier]
        for name, evaluator in fits or ordered:
            head: tuple[str, ...] = ()
            if evaluator.needs == "classifier" and not is_classifier:
                if not tuned:
                    raise ValueError(f"{name} needs a fine-tuned classifier; add a finetune evaluator to the benchmark")
                head = (f"{subject}/{tuned[0]}",)
            jobs.append(
                Job(name=f"{subject}/{name}", kind="evaluate", subject=subject, evaluator=name, needs=made + head)
            )
    return jobs


def _kind(source: FromCheckpoint) -> str:
    """What a checkpoint says it is; a missing one is a backbone here, and fails when it is read."""
    try:
        kind = json.loads((Path(source.path) / "meta.json").read_text())["kind"]
    except (OSError, ValueError, KeyError):
        return "backbone"
    return str(kind)
