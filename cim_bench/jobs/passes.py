"""One pass over each image set for all models of a benchmark; every finished part is kept at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator, SetEvaluator
from cim_bench.contracts.parts import Part
from cim_bench.engine.devices import make_accelerator
from cim_bench.engine.inference import ADVICE, ImageBatch, NonFiniteOutputError, Transform, run_pass, watched
from cim_bench.jobs.identity import protocol_info
from cim_bench.models.backbone import Backbone
from cim_bench.records.facets import FacetKey
from cim_bench.records.measurement import Measurement
from cim_bench.records.outcomes import check_kept, outcomes_file, tally

FINITE: FacetKey = (("finite", True),)  # in place of facets: whether a model's outputs were finite so far


def passes(
    evaluator: SetEvaluator, models: Mapping[str, Backbone], contexts: Mapping[str, Context]
) -> Iterator[list[Part]]:
    """Make the outcomes of all parts for all models, skipping what is on disk.

    Args:
        evaluator: The protocol.
        models: On their device, by name.
        contexts: Of the same names.

    Yields:
        The finished parts: once when those of the subset are complete and others follow, and once at the end.

    Raises:
        ValueError: If outcomes of an earlier run are damaged, or an image cannot be read.
        NonFiniteOutputError: Naming a model whose outputs were not finite; those of the others are kept.
    """
    parts = evaluator.parts(next(iter(contexts.values())))
    for number, part in enumerate(parts):
        if number and parts[number - 1].subset and not part.subset:
            yield list(parts[:number])
        missing = {name: model for name, model in models.items() if not _is_kept(part, contexts[name])}
        if missing:
            _one_pass(evaluator, part, missing, contexts)
    yield list(parts)


def measurements(evaluator: SetEvaluator, ctx: Context, parts: Sequence[Part] | None = None) -> list[Measurement]:
    """What the outcomes on disk amount to.

    Args:
        evaluator: The protocol.
        ctx: The job's.
        parts: Those to count; all of the evaluator's by default.
    """
    counted = evaluator.parts(ctx) if parts is None else parts
    ctx.warnings.clear()  # what the subset gave rise to is said anew of the whole
    counts = tally((outcomes_file(ctx.folder, part.name) for part in counted), ctx.protocol)
    return list(evaluator.measure(counts, ctx))


def measure(evaluator: Evaluator, model: Backbone, ctx: Context) -> list[Measurement]:
    """What one evaluator measures of one model."""
    ctx = replace(ctx, protocol=protocol_info(evaluator))
    if not isinstance(evaluator, SetEvaluator):
        return list(evaluator.run(model, ctx))
    for _stage in passes(evaluator, {"": model}, {"": ctx}):
        pass
    return measurements(evaluator, ctx)


def _is_kept(part: Part, ctx: Context) -> bool:
    file = outcomes_file(ctx.folder, part.name)
    if not file.exists():
        return False
    ids = [part.images.image_id(i) for i in range(len(part.images))]
    check_kept(file, ctx.key, ids, part.images.labels())
    return True


def _one_pass(
    evaluator: SetEvaluator, part: Part, models: Mapping[str, Backbone], contexts: Mapping[str, Context]
) -> None:
    """Decode the part once, ask every model, and keep the answers."""
    groups: dict[Transform, dict[str, Backbone]] = defaultdict(dict)
    for name, model in models.items():
        groups[evaluator.transform(model)][name] = model
    machine = next(iter(contexts.values())).machine
    with watched(models) as finite:
        answers_of = partial(_answers, evaluator, part, groups, finite)
        outputs, labels = run_pass(answers_of, part.images, list(groups), machine=machine)
    odd = [name for name in models if not bool(outputs.pop((name, FINITE), torch.ones(1)).all())]
    for name in (name for name in models if name not in odd):
        answers = [(dict(facets), values) for (model, facets), values in outputs.items() if model == name]
        contexts[name].save_outcomes(part.images, labels, answers, part.name)
    make_accelerator(machine).wait_for_everyone()  # before another process looks for the file
    if odd:
        where = f"{part.images.name}/{part.images.split}"
        raise NonFiniteOutputError(f"{odd[0]}: the model's outputs on {where} are not finite; {ADVICE}", odd[0])


def _answers(
    evaluator: SetEvaluator,
    part: Part,
    groups: Mapping[Transform, Mapping[str, Backbone]],
    finite: Mapping[str, Tensor],
    batch: ImageBatch,
) -> Iterator[tuple[tuple[str, FacetKey], Tensor]]:
    for transform, models in groups.items():
        for name, facets, values in evaluator.answers(part, models, batch.images[transform], batch):
            yield (name, tuple(facets.items())), values
        for name in (name for name in models if name in finite):
            yield (name, FINITE), finite[name].expand(len(batch.labels))  # an output: all processes know of all batches
