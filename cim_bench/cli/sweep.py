"""One evaluator at several values of a setting: each is an evaluator, and a row, of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cim_bench.cli.overrides import override

if TYPE_CHECKING:
    from cim_bench.benchmark import Benchmark
    from cim_bench.contracts.evaluator import Evaluator


def sweep(benchmark: Benchmark, arguments: Sequence[str], prog: str) -> Benchmark:
    """The benchmark with copies of an evaluator in its place, one for each value; none of them is chosen.

    Args:
        benchmark: All its other fields as they are to be.
        arguments: ``EVALUATOR.SETTING``, and the values.
        prog: Command, for errors.

    Raises:
        ValueError: If there is no such evaluator or setting, fewer than two values, or one that may not be.

    Examples:
        ``finetune.training.base_lr 1e-3 2e-3`` makes ``finetune-base_lr-1e-3`` and ``finetune-base_lr-2e-3``.
    """
    if not arguments:
        return benchmark
    name, _, setting = arguments[0].partition(".")
    values = list(dict.fromkeys(arguments[1:]))
    if name not in benchmark.evaluators or not setting:
        known = ", ".join(benchmark.evaluators)
        raise ValueError(
            f"--sweep begins with EVALUATOR.SETTING, such as finetune.training.base_lr; {arguments[0]!r} names none of "
            f"the evaluators {known}"
        )
    if len(values) < 2:
        raise ValueError(f"--sweep {arguments[0]} has {len(values)} values; give two or more different ones")
    option = f"--evaluators.{arguments[0]}"
    copies = {
        f"{name}-{setting.rpartition('.')[2]}-{value}": override(benchmark, [option, value], prog).evaluators[name]
        for value in values
    }
    evaluators: dict[str, Evaluator] = {}
    only = dict(benchmark.only)
    for key, evaluator in benchmark.evaluators.items():
        evaluators |= copies if key == name else {key: evaluator}
    if name in only:
        meant = only.pop(name)
        only |= dict.fromkeys(copies, meant)
    return replace(benchmark, evaluators=evaluators, only=only)
