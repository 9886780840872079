"""The suite from Python: what `cim_bench` hands on as `evaluate`, `run`, `train_checkpoint` and `load_records`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from cim_bench import registry
from cim_bench.benchmark import Benchmark, Pretraining
from cim_bench.common.errors import IncompleteError
from cim_bench.common.files import check_writable
from cim_bench.common.streams import say
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.contracts.executor import Executor, JobResult
from cim_bench.engine.devices import is_main, process_count
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs.fitting import check_pretraining
from cim_bench.jobs.pretraining import pretrain
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.subjects import CHECKPOINT, pretraining_folder
from cim_bench.models.checkpoint import Meta
from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.records.record import Record
from cim_bench.records.store import read_runs
from cim_bench.reports.read.frames import records_frame
from cim_bench.spec import Data, FromCheckpoint, Machine


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """What a benchmark came to.

    Attributes:
        output: Folder of its records, outcomes and tables.
        jobs: How each job ended.
        records: The records of its jobs, made now or before, and of those that failed.
        tables: Its tables as Markdown; empty if nothing was measured.
        problems: Why tables or rows are missing, a sentence each: files of records or outcomes that are damaged.
    """

    output: Path
    jobs: tuple[JobResult, ...]
    records: tuple[Record, ...]
    tables: str
    problems: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[JobResult, ...]:
        """The jobs that failed, or were blocked by one that did."""
        return tuple(result for result in self.jobs if result.status in ("failed", "blocked"))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a record, as `load_records` gives them."""
        return _frame(self.records)

    def __str__(self) -> str:
        return self.tables

    def _repr_markdown_(self) -> str:
        return self.tables


@dataclass(frozen=True, kw_only=True)
class TrainedCheckpoint:
    """A checkpoint that was trained.

    Attributes:
        path: Its folder, which `evaluate` takes.
        meta: Its identity.
    """

    path: Path
    meta: Meta


def evaluate(
    checkpoints: Sequence[str | Path | FromCheckpoint],
    *,
    evaluators: Sequence[str | Evaluator] | Mapping[str, Evaluator] = ("knn", "linear_probe"),
    data: str | Path | Data,
    output: str | Path = "runs/evaluate",
    machine: Machine | None = None,
    executor: Executor | None = None,
    seed: int = 0,
) -> BenchmarkResult:
    """Measure checkpoints: ours, public files, or ``timm:NAME``. What is finished in `output` is not measured again.

    Args:
        checkpoints: Folders, files or names; `FromCheckpoint` says more about one.
        evaluators: Names of evaluators or of recipes of one, or evaluators with settings of their own.
        data: The image set, or its root.
        output: Folder for results.
        machine: Device, workers, memory.
        executor: What runs the jobs; slots of this machine by default.
        seed: Of every random choice.

    Raises:
        ValueError: For an unknown name, or a checkpoint that cannot be opened; a job that fails raises nothing, and is
            among `BenchmarkResult.failed`.
        OSError: If `output` cannot be written.
    """
    given = [c if isinstance(c, FromCheckpoint) else FromCheckpoint(path=str(c)) for c in checkpoints]
    check_checkpoints(given)
    benchmark = make_evaluation(
        given,
        evaluators,
        data=data if isinstance(data, Data) else Data(name=Path(data).name, root=str(data)),
        machine=machine or Machine(),
        executor=executor or LocalExecutor(),
        seed=seed,
    )
    return run(benchmark, output)


def make_evaluation(
    checkpoints: Sequence[FromCheckpoint],
    evaluators: Sequence[str | Evaluator] | Mapping[str, Evaluator],
    *,
    data: Data,
    machine: Machine,
    executor: Executor,
    seed: int,
) -> Benchmark:
    """The benchmark of existing checkpoints.

    Raises:
        ValueError: For an unknown evaluator.
    """
    named = evaluators if isinstance(evaluators, Mapping) else dict(_named(one) for one in evaluators)
    return Benchmark(
        name="evaluate",
        subjects={source.path: source for source in checkpoints},
        evaluators=dict(named),
        data=data,
        machine=machine,
        executor=executor,
        seed=seed,
    )


def check_checkpoints(checkpoints: Sequence[FromCheckpoint]) -> None:
    """Open each checkpoint once, so that a wrong one stops everything before any work is done.

    Raises:
        ValueError: If there is none, or one cannot be opened.
    """
    if not checkpoints:
        raise ValueError("no checkpoint given; name one or more checkpoint folders or files")
    for source in checkpoints:
        open_checkpoint(source)


def _named(evaluator: str | Evaluator) -> tuple[str, Evaluator]:
    """An evaluator with the name that its jobs carry."""
    if isinstance(evaluator, Evaluator):
        return registry.name_of("evaluators", type(evaluator)), evaluator
    is_recipe = evaluator in registry.choices("recipes")
    made = registry.load_recipe(evaluator) if is_recipe else registry.make("evaluators", evaluator)
    if not isinstance(made, Evaluator):
        known = ", ".join(registry.choices("evaluators"))
        raise ValueError(f"recipe {evaluator!r} is not an evaluator; choose one of {known}")
    return evaluator, made


def run(recipe: Benchmark | str, output: str | Path | None = None, *, jobs: Sequence[str] = ()) -> BenchmarkResult:
    """Run a benchmark: every subject through every evaluator. What is finished in `output` is skipped.

    Args:
        recipe: A benchmark, the name of a recipe, or a recipe's .py file.
        output: Folder for results; ``runs/NAME`` by default.
        jobs: Patterns of the jobs to run, with those that they need; none for all.

    Raises:
        ValueError: If the recipe is not a benchmark or names unknown tables; a job that fails raises nothing.
        OSError: If `output` cannot be written.
    """
    benchmark = registry.load_recipe(recipe) if isinstance(recipe, str) else recipe
    if not isinstance(benchmark, Benchmark):
        raise ValueError(f"{recipe!r} is a {type(benchmark).__name__}, not a benchmark")
    tables = registry.load(registry.target("tables", benchmark.report))
    folder = Path(output) if output is not None else Path("runs") / benchmark.name
    runner = Runner(benchmark, folder, jobs)
    results = runner.run(_print_result)
    keys = runner.keys()
    names = {job.subject for job in runner.jobs}
    problems: list[str] = []
    every = [record for record, _ in read_runs(folder, problems)]
    found = [r for r in every if r.key in keys or (r.measurement is None and r.subject.name in names)]
    text = ""
    try:
        text = tables(folder, folder, keys) if is_main() and (keys or not results) else ""
    except IncompleteError as error:
        text, problems = error.made, [*dict.fromkeys([*problems, *error.problems])]
    return BenchmarkResult(
        output=folder,
        jobs=tuple(results.values()),
        records=tuple(found),
        tables=text,
        problems=tuple(problems),
    )


def train_checkpoint(recipe: Pretraining | str, output: str | Path | None = None) -> TrainedCheckpoint:
    """Train a checkpoint, going on where an earlier run was cut off; one that is finished is returned as it is.

    Args:
        recipe: A pre-training, the name of a recipe, or a recipe's .py file.
        output: Folder of the job; ``runs/NAME`` by default.

    Raises:
        ValueError: If the recipe is not a pre-training, or pretext, architecture and data do not fit together.
        ArithmeticError: If the loss is no longer finite.
        OSError: If `output` cannot be written.
    """
    made = registry.load_recipe(recipe) if isinstance(recipe, str) else recipe
    if not isinstance(made, Pretraining):
        raise ValueError(f"{recipe!r} is a {type(made).__name__}, not a pre-training")
    if made.machine.processes > 1 and process_count() == 1:
        raise ValueError(
            f"machine.processes is {made.machine.processes} and this is one process; start the command with "
            "`accelerate launch`, or train the checkpoint as a subject of a benchmark"
        )
    check_pretraining(made)
    name = Path(recipe).stem if isinstance(recipe, str) else made.pretext.method.lower()
    parent = Path(output) if output is not None else Path("runs") / name
    check_writable(parent)
    folder, key = pretraining_folder(made, parent)
    meta = pretrain(made, folder, key)
    return TrainedCheckpoint(path=folder / CHECKPOINT, meta=meta)


def load_records(runs: str | Path) -> pd.DataFrame:
    """Records as a frame: one row a record, and beside its fields one column a facet (``k``, ``attack``, ...).

    Args:
        runs: A ``records.jsonl``, or a folder with any number of them below it.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: Naming file and line, if a line is not a record.
    """
    return _frame([record for record, _ in read_runs(Path(runs))])


def _frame(records: Sequence[Record]) -> pd.DataFrame:
    frame = records_frame(records)
    facets = [record.measurement.facets if record.measurement else {} for record in records]
    names = dict.fromkeys(name for found in facets for name in found)
    for name in names:
        frame[name] = pd.Series([found.get(name) for found in facets], dtype=object)
    return frame


def _print_result(result: JobResult) -> None:
    if is_main():
        say(f"{result.status:8s}{result.job.name} {result.error}".rstrip())
