"""From a benchmark to its graph of jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from cim_bench import registry
from cim_bench.benchmark import Benchmark, Pretraining
from cim_bench.common.files import safe_name
from cim_bench.contracts.evaluator import Evaluator, SetEvaluator
from cim_bench.contracts.executor import Job, Resources
from cim_bench.contracts.features import FeatureEvaluator
from cim_bench.models.formats.opening import checkpoint_kind
from cim_bench.spec import FromCheckpoint, Machine


def make_plan(benchmark: Benchmark) -> list[Job]:
    """All jobs of a benchmark, dependencies first.

    An evaluator that needs a classifier waits for the subject's first fine-tuning. A subject that is a classifier
    itself goes straight to these; evaluators of backbones are left out where it has others. A subject whose
    checkpoint nobody gave has no jobs.

    Raises:
        ValueError: If an evaluator needs a classifier and the benchmark has no ``finetune`` for that subject, if two
            names would have one folder, or if `Benchmark.only` names an evaluator or subjects that do not exist.
    """
    _check_names(benchmark)
    _check_only(benchmark)
    jobs: list[Job] = []
    for subject, source in benchmark.subjects.items():
        if is_absent(source):
            continue
        made: tuple[str, ...] = ()
        if isinstance(source, Pretraining):
            made = (f"{subject}/pretrain",)
            wanted = resources(source.machine)
            jobs.append(Job(name=made[0], kind="pretrain", subject=subject, resources=wanted))
        is_classifier = _is_classifier(source)
        for name in _evaluators_of(benchmark, subject, is_classifier):
            head: tuple[str, ...] = ()
            if benchmark.evaluators[name].needs == "classifier" and not is_classifier:
                head = (f"{subject}/{_finetuning(benchmark, subject, name)}",)
            jobs.append(
                Job(
                    name=f"{subject}/{name}",
                    kind="evaluate",
                    subject=subject,
                    evaluator=name,
                    needs=made + head,
                    shares=name if _shares(benchmark.evaluators[name]) else "",
                    resources=resources(benchmark.machine),
                )
            )
    return jobs


def resources(machine: Machine) -> Resources:
    """What a job on a machine wants."""
    gpus = 0 if machine.device == "cpu" else machine.processes
    return Resources(processes=machine.processes, gpus=gpus, memory_gb=machine.memory_gb)


def select_jobs(jobs: Sequence[Job], patterns: Sequence[str], absent: Sequence[str] = ()) -> list[Job]:
    """The jobs whose names fit one of the patterns, and those that they need.

    Args:
        jobs: A plan.
        patterns: Such as ``CIM-*/knn`` or ``MAE-ViT/*``; none for all jobs.
        absent: Subjects whose checkpoint nobody gave, for the message.

    Raises:
        ValueError: If a pattern fits no job.
    """
    if not patterns:
        return list(jobs)
    for pattern in patterns:
        if not any(fnmatchcase(job.name, pattern) for job in jobs):
            wanted_by = next((name for name in absent if fnmatchcase(name, pattern.partition("/")[0])), "")
            if wanted_by:
                raise ValueError(
                    f"--jobs {pattern} fits no job, for {wanted_by} has no checkpoint; give --subjects.{wanted_by}.path"
                )
            names = ", ".join(job.name for job in jobs[:4]) + (", ..." if len(jobs) > 4 else "")
            raise ValueError(f"--jobs {pattern} fits no job of {names or 'this benchmark, which has none'}")
    wanted = {job.name for job in jobs if any(fnmatchcase(job.name, pattern) for pattern in patterns)}
    for job in reversed(jobs):  # needs come before those who need them
        if job.name in wanted:
            wanted.update(job.needs)
    return [job for job in jobs if job.name in wanted]


def left_out(benchmark: Benchmark, subjects: Collection[str]) -> list[str]:
    """Evaluators of backbones that some subjects do not pass through because they are classifiers, a sentence each."""
    found = []
    for subject, source in benchmark.subjects.items():
        if subject in subjects and _is_classifier(source):
            chosen = _evaluators_of(benchmark, subject, is_classifier=True)
            names = [name for name in benchmark.evaluators if _is_meant_for(benchmark, name, subject)]
            missing = [name for name in names if name not in chosen]
            if missing:
                found.append(f"left out for {subject}, a fine-tuned classifier: {', '.join(missing)} (for backbones)")
    return found


def is_absent(source: object) -> bool:
    """True for a subject whose checkpoint nobody gave."""
    return isinstance(source, FromCheckpoint) and not source.path


def _is_meant_for(benchmark: Benchmark, evaluator: str, subject: str) -> bool:
    return any(fnmatchcase(subject, pattern) for pattern in benchmark.only.get(evaluator, ("*",)))


def _evaluators_of(benchmark: Benchmark, subject: str, is_classifier: bool) -> list[str]:
    """Names of the evaluators that a subject passes through, those of classifiers last."""
    own = [name for name in benchmark.evaluators if _is_meant_for(benchmark, name, subject)]
    own.sort(key=lambda name: benchmark.evaluators[name].needs == "classifier")
    fits = [name for name in own if benchmark.evaluators[name].needs == "classifier" or not is_classifier]
    return fits or own  # if none fits, all are planned and fail with a sentence


def _finetuning(benchmark: Benchmark, subject: str, wanted_by: str) -> str:
    """The fine-tuning whose classifier stands for a subject: the first that is meant for it."""
    for name, evaluator in benchmark.evaluators.items():
        if registry.name_of("evaluators", type(evaluator)) == "finetune" and _is_meant_for(benchmark, name, subject):
            return name
    raise ValueError(
        f"{wanted_by} needs a fine-tuned classifier; add a finetune evaluator for {subject} to the benchmark"
    )


def _shares(evaluator: Evaluator) -> bool:
    """Whether its jobs share passes over images."""
    return evaluator.shares if isinstance(evaluator, FeatureEvaluator) else isinstance(evaluator, SetEvaluator)


def _check_names(benchmark: Benchmark) -> None:
    """Names become folders: two of one folder would count as one, and a row would vanish."""
    for what, names in (("subjects", benchmark.subjects), ("evaluators", benchmark.evaluators)):
        taken = {"pretrain": "pre-training"} if what == "evaluators" else {}
        for name in names:
            folder = safe_name(name)
            if folder in taken:
                raise ValueError(f"{what} {taken[folder]!r} and {name!r} would share the folder {folder}; rename one")
            taken[folder] = name


def _check_only(benchmark: Benchmark) -> None:
    for name, patterns in benchmark.only.items():
        if name not in benchmark.evaluators:
            raise ValueError(f"only names {name!r}, which is no evaluator of {', '.join(benchmark.evaluators)}")
        for pattern in patterns:
            if not any(fnmatchcase(subject, pattern) for subject in benchmark.subjects):
                raise ValueError(
                    f"only.{name} has {pattern!r}, which fits no subject of {', '.join(benchmark.subjects)}"
                )


def _is_classifier(source: object) -> bool:
    return isinstance(source, FromCheckpoint) and (source.kind or _kind(source)) == "classifier"


def _kind(source: FromCheckpoint) -> str:
    """What a checkpoint is; one that cannot be read is a backbone here, and fails when it is loaded."""
    try:
        return checkpoint_kind(source)
    except (OSError, ValueError, KeyError, TypeError):
        return "backbone"
