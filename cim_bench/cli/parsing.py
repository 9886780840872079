"""What a command line means: the recipe with its fields overridden, or the checkpoint with what is told of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cim_bench import registry
from cim_bench.cli.overrides import override
from cim_bench.cli.sweep import sweep

if TYPE_CHECKING:
    from cim_bench.benchmark import Benchmark, Pretraining
    from cim_bench.selftest.measure import SelfTest
    from cim_bench.spec import FromCheckpoint


def foreign(options: argparse.Namespace, path: str) -> FromCheckpoint:
    """A checkpoint that is given, with what the command line tells of it."""
    from cim_bench.spec import FromCheckpoint

    return FromCheckpoint(
        path=path,
        method=options.method,
        arch=options.arch,
        image_size=options.image_size,
        epochs=options.epochs,
        allow_pickle=options.allow_pickle,
        format=options.format,
        normalisation=options.normalisation,
        drop_head=getattr(options, "drop_head", False),
    )


def parse_pretrain(options: argparse.Namespace, fields: Sequence[str]) -> Pretraining:
    """The pre-training that a command line means."""
    from cim_bench.benchmark import Pretraining

    recipe = registry.load_recipe(options.recipe)
    if not isinstance(recipe, Pretraining):
        raise ValueError(
            f"recipe {options.recipe!r} is a {type(recipe).__name__}, not a pre-training; "
            f"{_other_way(recipe, options.recipe)}"
        )
    return override(recipe, fields, f"cim-bench pretrain {options.recipe}")


def parse_run(options: argparse.Namespace, fields: Sequence[str]) -> Benchmark:
    """The benchmark that a command line means."""
    from cim_bench.benchmark import Benchmark

    recipe = registry.load_recipe(options.recipe)
    if not isinstance(recipe, Benchmark):
        raise ValueError(
            f"recipe {options.recipe!r} is a {type(recipe).__name__}, not a benchmark; "
            f"{_other_way(recipe, options.recipe)}"
        )
    prog = f"cim-bench run {options.recipe}"
    return sweep(override(_with_executor(recipe, options.executor), fields, prog), options.sweep, prog)


def parse_evaluate(options: argparse.Namespace, fields: Sequence[str]) -> Benchmark:
    """The benchmark of existing checkpoints that a command line means."""
    from cim_bench.api import make_evaluation
    from cim_bench.executors.local import LocalExecutor
    from cim_bench.spec import Data, Machine

    given = [foreign(options, path) for path in options.checkpoints]
    benchmark = make_evaluation(
        given, options.evaluators, data=Data(), machine=Machine(), executor=LocalExecutor(), seed=options.seed
    )
    prog = "cim-bench evaluate"
    return sweep(override(_with_executor(benchmark, options.executor), fields, prog), options.sweep, prog)


def parse_selftest(_options: argparse.Namespace, fields: Sequence[str]) -> SelfTest:
    """What a command line compares with, and on which images."""
    from cim_bench.selftest.measure import SelfTest

    return override(SelfTest(), fields, "cim-bench selftest CHECKPOINT")


def _with_executor(benchmark: Benchmark, name: str) -> Benchmark:
    """The benchmark with another executor, if one was named."""
    if not name:
        return benchmark
    return replace(benchmark, executor=registry.make("executors", name))


def _other_way(recipe: object, name: str) -> str:
    from cim_bench.benchmark import Benchmark
    from cim_bench.contracts.evaluator import Evaluator

    if isinstance(recipe, Benchmark):
        return f"use `cim-bench run {name}`"
    if isinstance(recipe, Evaluator):
        return f"use `cim-bench evaluate CHECKPOINT --evaluators {name}`"
    return f"use `cim-bench pretrain {name}`"
