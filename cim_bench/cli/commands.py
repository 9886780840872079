"""One function a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cim_bench import registry

if TYPE_CHECKING:
    from cim_bench.benchmark import Benchmark
    from cim_bench.spec import FromCheckpoint


def _foreign(options: argparse.Namespace, path: str) -> FromCheckpoint:
    from cim_bench.spec import FromCheckpoint

    return FromCheckpoint(
        path=path,
        method=options.method,
        arch=options.arch,
        image_size=options.image_size,
        epochs=options.epochs,
        allow_pickle=options.allow_pickle,
    )


def command_list(_options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """Names and first docstring lines, read from source."""
    for group in registry.GROUPS:
        print(group)
        for name, target in registry.choices(group).items():
            print(f"  {name:24s} {registry.summary(target)}")
    return 0


def command_pretrain(options: argparse.Namespace, fields: Sequence[str]) -> int:
    """Make one checkpoint."""
    from cim_bench.benchmark import Pretraining
    from cim_bench.cli.overrides import override
    from cim_bench.common.files import check_writable
    from cim_bench.engine.devices import is_main
    from cim_bench.jobs.pretraining import pretrain
    from cim_bench.jobs.subjects import pretraining_folder
    from cim_bench.registry import load_recipe

    recipe = load_recipe(options.recipe)
    if not isinstance(recipe, Pretraining):
        raise ValueError(
            f"recipe {options.recipe!r} is a {type(recipe).__name__}, not a pre-training; "
            f"{_other_way(recipe, options.recipe)}"
        )
    recipe = override(recipe, fields, f"cim-bench pretrain {options.recipe}")
    output = options.output or Path("runs") / Path(options.recipe).stem
    check_writable(output)
    folder, key = pretraining_folder(recipe, output)
    meta = pretrain(recipe, folder, key)
    if is_main():
        print(f"{folder / 'checkpoint'}  {meta.method} {meta.arch}, {meta.epochs} epochs, weights {meta.hash[:12]}")
    return 0


def command_run(options: argparse.Namespace, fields: Sequence[str]) -> int:
    """Run or plan a benchmark recipe."""
    from cim_bench.benchmark import Benchmark
    from cim_bench.cli.overrides import override
    from cim_bench.registry import load_recipe

    recipe = load_recipe(options.recipe)
    if not isinstance(recipe, Benchmark):
        raise ValueError(
            f"recipe {options.recipe!r} is a {type(recipe).__name__}, not a benchmark; "
            f"{_other_way(recipe, options.recipe)}"
        )
    benchmark = override(recipe, fields, f"cim-bench run {options.recipe}")
    output = options.output or Path("runs") / benchmark.name
    return run_benchmark(benchmark, output, plan=options.plan, only_jobs=options.jobs)


def command_evaluate(options: argparse.Namespace, fields: Sequence[str]) -> int:
    """A benchmark of existing checkpoints and named evaluators."""
    from cim_bench.benchmark import Benchmark
    from cim_bench.cli.overrides import override
    from cim_bench.contracts.evaluator import Evaluator
    from cim_bench.models.formats.opening import open_checkpoint
    from cim_bench.registry import load_recipe
    from cim_bench.spec import Data

    def evaluator(name: str) -> Evaluator:
        made = (
            load_recipe(name)
            if name in registry.choices("recipes")
            else registry.load(registry.target("evaluators", name))()
        )
        if not isinstance(made, Evaluator):
            raise ValueError(
                f"recipe {name!r} is not an evaluator; choose one of {', '.join(registry.choices('evaluators'))}"
            )
        return made

    if not options.checkpoints and "--help" not in fields:
        raise ValueError("no checkpoint given; name one or more checkpoint folders or files")
    subjects = {path: _foreign(options, path) for path in options.checkpoints}
    for source in subjects.values():
        open_checkpoint(source)
    benchmark = Benchmark(
        name="evaluate",
        subjects=dict(subjects),
        evaluators={name: evaluator(name) for name in options.evaluators},
        data=Data(),
        seed=options.seed,
    )
    benchmark = override(benchmark, fields, "cim-bench evaluate")
    return run_benchmark(benchmark, options.output or Path("runs/evaluate"))


def run_benchmark(benchmark: Benchmark, output: Path, *, plan: bool = False, only_jobs: Sequence[str] = ()) -> int:
    """Run it, or some jobs of it, and print its tables; with `plan`, print its jobs instead."""
    from cim_bench.cli.plan_view import outlook
    from cim_bench.engine.devices import is_main
    from cim_bench.jobs.runner import Runner

    runner = Runner(benchmark, output, only_jobs)
    if plan:
        print(outlook(runner))
        return 0
    results = runner.run()
    failed = [result for result in results.values() if result.status in ("failed", "blocked")]
    if is_main():
        measured = any(r.job.kind == "evaluate" and r not in failed for r in results.values())
        if measured or not results:
            print_report(benchmark.report, output, output, runner.keys)
        for result in failed:
            print(f"cim-bench: {result.job.name} {result.status}: {result.error}", file=sys.stderr)
    return 1 if failed else 0


def print_report(paper: str, runs: Path, output: Path, keys: Collection[str] | None = None) -> None:
    """Print a paper's tables over the records below `runs` (of some jobs only) and save them in `output`."""
    print(registry.load(registry.target("tables", paper))(runs, output, keys))


def command_report(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """Tables from records."""
    folder = options.runs if options.runs.is_dir() else options.runs.parent
    print_report(options.tables, options.runs, options.output or folder)
    return 0


def command_inspect(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """What a checkpoint is, and what became of each of its keys."""
    from cim_bench.models.inspection.inspect import inspect

    print(inspect(_foreign(options, options.checkpoint)))
    return 0


def command_visualize(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """One figure of a pretext at work."""
    from cim_bench.pretrain.visualize import visualize

    visualize(options.checkpoint, options.images, options.output, seed=options.seed)
    print(options.output)
    return 0


def command_compare(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """Paired tests of two subjects."""
    from cim_bench.reports.compare import compare

    print(compare(options.a, options.b, seed=options.seed))
    return 0


def command_data(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """Check image sets, or write a corrupted one."""
    if options.action == "check":
        from cim_bench.data.check.command import command

        return command(options)
    from cim_bench.data.images import ImageSet
    from cim_bench.evals.corruptions.generate import CORRUPTIONS
    from cim_bench.evals.corruptions.write import write_corrupted
    from cim_bench.spec import Data, Machine

    images = ImageSet(Data(name=Path(options.root).name, root=options.root), options.split)
    written = write_corrupted(
        images,
        options.out,
        corruptions=options.corruptions or CORRUPTIONS,
        severities=options.severities,
        size=options.size,
        crop_pct=options.crop_pct,
        seed=options.seed,
        machine=Machine(device="cpu", workers=options.workers),
    )
    print(f"{options.out}: {written} files written")
    return 0


def _other_way(recipe: object, name: str) -> str:
    from cim_bench.benchmark import Benchmark
    from cim_bench.contracts.evaluator import Evaluator

    if isinstance(recipe, Benchmark):
        return f"use `cim-bench run {name}`"
    if isinstance(recipe, Evaluator):
        return f"use `cim-bench evaluate CHECKPOINT --evaluators {name}`"
    return f"use `cim-bench pretrain {name}`"
