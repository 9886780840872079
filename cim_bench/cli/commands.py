"""One function a command; each imports what it needs when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cim_bench import registry
from cim_bench.cli.parsing import foreign, parse_evaluate, parse_pretrain, parse_run, parse_selftest
from cim_bench.common.streams import say

if TYPE_CHECKING:
    from cim_bench.benchmark import Benchmark


def command_list(_options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """Names and first docstring lines, read from source; and packages that do not import."""
    for group in registry.GROUPS:
        print(group)
        for name, target in registry.choices(group).items():
            print(f"  {name:24s} {registry.broken(group, name) or registry.summary(target)}")
    return 0


def command_pretrain(options: argparse.Namespace, fields: Sequence[str]) -> int:
    """Make one checkpoint."""
    from cim_bench.api import train_checkpoint
    from cim_bench.engine.devices import is_main

    recipe = parse_pretrain(options, fields)
    made = train_checkpoint(recipe, options.output or Path("runs") / Path(options.recipe).stem)
    if is_main():
        meta = made.meta
        print(f"{made.path}  {meta.method} {meta.arch}, {meta.epochs} epochs, weights {meta.hash[:12]}")
    return 0


def command_run(options: argparse.Namespace, fields: Sequence[str]) -> int:
    """Run or plan a benchmark recipe."""
    benchmark = parse_run(options, fields)
    output = options.output or Path("runs") / benchmark.name
    return run_benchmark(benchmark, output, plan=options.plan, only_jobs=options.jobs)


def command_evaluate(options: argparse.Namespace, fields: Sequence[str]) -> int:
    """A benchmark of existing checkpoints and named evaluators."""
    from cim_bench.api import check_checkpoints

    if "--help" not in fields:
        check_checkpoints([foreign(options, path) for path in options.checkpoints])
    return run_benchmark(parse_evaluate(options, fields), options.output or Path("runs/evaluate"))


def run_benchmark(benchmark: Benchmark, output: Path, *, plan: bool = False, only_jobs: Sequence[str] = ()) -> int:
    """Run it, or some jobs of it, and print its tables; with `plan`, print its jobs instead."""
    from cim_bench.api import run
    from cim_bench.cli.plan_view import plan_text
    from cim_bench.engine.devices import is_main
    from cim_bench.jobs.runner import Runner

    registry.target("tables", benchmark.report)  # refused before anything is planned
    if plan:
        print(plan_text(Runner(benchmark, output, only_jobs)))
        return 0
    result = run(benchmark, output, jobs=only_jobs)
    if is_main():
        if result.tables:
            print(result.tables)
        for job in result.failed:
            say(f"cim-bench: {job.job.name} {job.status}: {job.error}")
    return 1 if _say_problems(result.problems) or result.failed else 0


def _say_problems(problems: Sequence[str]) -> bool:
    """What is missing, and whether anything is."""
    for problem in problems:
        say(f"cim-bench: {problem}")
    return bool(problems)


def command_job(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """Jobs of a written benchmark, in this process."""
    from cim_bench.contracts.executor import JobResult
    from cim_bench.engine.devices import is_main
    from cim_bench.jobs.worker import follow, open_runner, run_jobs

    def tell(result: JobResult) -> None:
        if is_main():
            print(f"{result.status:8s}{result.job.name} {result.error}".rstrip(), flush=True)

    runner = open_runner(options.file, options.load)
    if options.follow:
        follow(runner)
        return 0
    if not options.names:
        raise ValueError(f"no job given; the benchmark's jobs are {', '.join(runner.states.jobs)}")
    return 0 if run_jobs(runner, options.names, tell) else 1


def command_clean(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """List what the present benchmarks of output folders do not refer to, and remove it if asked to."""
    from cim_bench.jobs.clean import find_outputs, plan_cleaning

    for output in find_outputs(options.runs):
        plan = plan_cleaning(output, options.load)
        print(f"{output}: kept is what {plan.benchmark.relative_to(output)} refers to, the benchmark that was run last")
        for item in plan.removable:
            print(f"  {item.size / 1e6:9.1f} MB  {item.path.relative_to(output)}  {item.reason}")
            if options.delete:
                item.remove()
        for reason in plan.kept:
            print(f"  kept as it cannot be told: {reason}")
        total = sum(item.size for item in plan.removable) / 1e6
        done = "removed" if options.delete else "can be removed with --delete"
        print(f"  {len(plan.removable)} files and folders, {total:.1f} MB, {done}")
    return 0


def command_report(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """Tables from records."""
    from cim_bench.common.errors import IncompleteError

    folder = options.runs if options.runs.is_dir() else options.runs.parent
    tables = registry.load(registry.target("tables", options.tables))
    try:
        print(tables(options.runs, options.output or folder, None))
    except IncompleteError as error:
        if error.made:
            print(error.made)
        return int(_say_problems(error.problems))
    return 0


def command_inspect(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """What a checkpoint is, and what became of each of its keys."""
    from cim_bench.models.inspection.inspect import inspect

    print(inspect(foreign(options, options.checkpoint)))
    return 0


def command_selftest(options: argparse.Namespace, fields: Sequence[str]) -> int:
    """A released classifier's accuracy beside its published one."""
    from cim_bench.engine.devices import is_main
    from cim_bench.selftest.measure import self_test

    asked = parse_selftest(options, fields)
    if not options.checkpoint:
        raise ValueError("no checkpoint given; name a fine-tuned file, a checkpoint folder or timm:NAME")
    result = self_test(foreign(options, options.checkpoint), asked)
    if is_main():
        print(options.checkpoint, result, sep="\n")
    return 0 if result.agrees else 1


def command_visualize(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """One figure of a pretext at work, or two of what jobs of segmentation predict."""
    from cim_bench.models.checkpoint import META

    if not (options.checkpoint / META).exists():
        from cim_bench.cli.segmentation_pictures import draw_segmentation

        folders = [options.checkpoint, *options.images]
        print(*draw_segmentation(folders, options.output, root=options.root, class_list=options.class_list), sep="\n")
        return 0
    from cim_bench.pretrain.visualize import visualize

    if not options.images:
        raise ValueError("no image given; name image files behind the checkpoint")
    visualize(options.checkpoint, options.images, options.output, seed=options.seed)
    print(options.output)
    return 0


def command_compare(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """Paired tests of two subjects."""
    from cim_bench.reports.compare import compare

    found = compare(options.a, options.b, seed=options.seed)
    print(found.markdown())
    return int(_say_problems(found.problems))


def command_data(options: argparse.Namespace, _fields: Sequence[str]) -> int:
    """Check image sets, or write a corrupted one."""
    if options.action == "check":
        from cim_bench.data.check.command import command

        return command(options)
    from cim_bench.common.ranges import CropPct, Pixels, Seed, fit
    from cim_bench.data.images import ImageSet
    from cim_bench.evals.corruptions.generate import CORRUPTIONS
    from cim_bench.evals.corruptions.write import write_corrupted
    from cim_bench.spec import Data, Machine

    for option, value, range_ in (
        ("--size", options.size, Pixels),
        ("--crop-pct", options.crop_pct, CropPct),
        ("--seed", options.seed, Seed),
    ):
        fit(option, value, range_)
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
