"""What ``cim-bench run RECIPE --plan`` prints: jobs and their states, and what has to be given before they can run."""

from __future__ import annotations

from collections import Counter

from cim_bench.plan import is_absent
from cim_bench.recipe import FromCheckpoint
from cim_bench.runner import Runner


def outlook(runner: Runner) -> str:
    """One line a job, then the data that is missing and the checkpoints that nobody gave; nothing is run."""
    lines, missing, states = [], Counter[str](), Counter[str]()
    for job in runner.jobs:
        state, _, reason = runner.status(job).partition(": ")
        after = f"  (after {', '.join(job.needs)})" if job.needs else ""
        lines.append(f"{state:9s} {job.name}{after}")
        states[state] += 1
        if reason:
            missing[reason] += 1
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    lines.append(f"{len(runner.jobs)} jobs: {counts}" if lines else "no job")
    if missing:
        hint = "missing (--data.root gives a set's folder, --evaluators.NAME.data.root that of an evaluator's own set):"
        lines += ["", hint, *(f"  {reason} [{count} jobs]" for reason, count in missing.items())]
    return "\n".join([*lines, *_absent(runner)])


def _absent(runner: Runner) -> list[str]:
    """Checkpoints to give, by the option that takes them and the place where they are published."""
    found = {
        name: source.published
        for name, source in runner.benchmark.subjects.items()
        if isinstance(source, FromCheckpoint) and is_absent(source)
    }
    if not found:
        return []
    options = {name: f"--subjects.{name}.path FILE" for name in found}
    width = max(map(len, options.values()))
    lines = [f"  {options[name]:{width}s}  {place or 'not published'}" for name, place in found.items()]
    return ["", "checkpoints not given (their rows show the published figures alone):", *lines]
