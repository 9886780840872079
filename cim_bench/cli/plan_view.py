"""What ``cim-bench run RECIPE --plan`` prints: jobs and their states, and what has to be given before they can run."""

from __future__ import annotations

from collections import Counter

from cim_bench.benchmark import Pretraining
from cim_bench.contracts.executor import Job
from cim_bench.jobs.plan import is_absent
from cim_bench.jobs.runner import Runner
from cim_bench.spec import OF_BENCHMARK, Data, FromCheckpoint


def plan_text(runner: Runner) -> str:
    """One line a job, then the data that is missing and the checkpoints that nobody gave; nothing is run.

    Raises:
        ValueError: If a pretext does not fit its architecture.
    """
    runner.check()
    lines, states, missing = list[str](), Counter[str](), dict[tuple[str, str], Counter[str]]()
    for job in runner.jobs:
        state, _, reason = runner.states.status(job).partition(": ")
        after = f"  (after {', '.join(job.needs)})" if job.needs else ""
        lines.append(f"{state:9s} {job.name}{after}")
        states[state] += 1
        if reason:
            missing.setdefault((_option(runner, job), reason), Counter())[job.evaluator or "pretrain"] += 1
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    lines.append(f"{len(runner.jobs)} jobs: {counts}" if lines else "no job")
    shared = Counter(job.shares for job in runner.jobs if job.shares)
    passes = [f"{name} ({count} jobs)" for name, count in shared.items() if count > 1]
    lines += [f"jobs that share one pass over their images: {', '.join(passes)}"] if passes else []
    lines += runner.left_out
    if missing:
        lines += ["", "missing, by the option that gives it:"]
        lines += [f"  {option}  {reason} [{_jobs(who)}]" for (option, reason), who in missing.items()]
    return "\n".join([*lines, *_absent(runner)])


def _option(runner: Runner, job: Job) -> str:
    """The option that gives what a job lacks: a folder of images or, if these are there, a checkpoint."""
    benchmark, source = runner.benchmark, runner.benchmark.subjects[job.subject]
    if job.kind == "pretrain":
        assert isinstance(source, Pretraining)
        return f"--subjects.{job.subject}.data.root" if source.data != OF_BENCHMARK else "--data.root"
    evaluator, option = benchmark.evaluators[job.evaluator], "--data.root"
    own = {
        f"--evaluators.{job.evaluator}.{f}.root": d
        for f, d in vars(evaluator).items()
        if isinstance(d, Data) and d.root
    }
    try:
        for data, split in evaluator.reads(benchmark.data):
            option = next((name for name, known in own.items() if data.root.startswith(known.root)), "--data.root")
            runner.states.fingerprint_of(evaluator, data, split)
    except (ValueError, OSError) as error:  # of sets that `reads` itself looks through, the message names the root
        return next((name for name, known in own.items() if known.root in str(error)), option)
    return f"--subjects.{job.subject}.{'path' if isinstance(source, FromCheckpoint) else 'arch'}"


def _jobs(evaluators: Counter[str]) -> str:
    count = evaluators.total()
    return f"{count} job{'s' if count > 1 else ''}: {', '.join(evaluators)}"


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
