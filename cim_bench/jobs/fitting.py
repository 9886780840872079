"""Whether pretexts fit their architectures, tried before any work is done and without memory for weights."""

from __future__ import annotations

from collections.abc import Collection

from cim_bench.benchmark import Benchmark, Pretraining, RandomInit
from cim_bench.models.backbone import meta_weights


def check_pretraining(recipe: Pretraining) -> None:
    """Build the pretext's model on torch's ``meta`` device, and what makes its inputs.

    Raises:
        ValueError: If sizes do not divide, the architecture is not one for this pretext, or it keeps no such export.
    """
    try:
        with meta_weights():
            recipe.pretext.build(recipe.arch).backbone_state(recipe.export)
        recipe.pretext.inputs(recipe.arch)
    except RuntimeError:  # a pretext of another package that needs its weights; the job itself will tell
        return


def check_subjects(benchmark: Benchmark, subjects: Collection[str]) -> None:
    """`check_pretraining` for some subjects of a benchmark.

    Raises:
        ValueError: Naming the subject.
    """
    for name in subjects:
        source = benchmark.subjects[name]
        try:
            if isinstance(source, Pretraining):
                check_pretraining(source)
            elif isinstance(source, RandomInit) and source.pretext is not None:
                with meta_weights():
                    source.pretext.build(source.arch)
        except ValueError as error:
            raise ValueError(f"subjects.{name}: {error}") from error
