"""One pass over each image set for all models of a benchmark; every finished part is kept at once."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from cim_bench.backbone import Backbone
from cim_bench.context import Context
from cim_bench.data.images import ImageSet
from cim_bench.inference import Batch, Transform, run_pass
from cim_bench.outcomes import outcomes_file, read_outcomes, tally
from cim_bench.recipe import SetEvaluator
from cim_bench.record import Measurement, sample_seed, stable_hash
from cim_bench.training import make_accelerator

ENOUGH = 5_000  # images a part: what a kill can cost


@dataclass(frozen=True, kw_only=True)
class Part:
    """One pass over images; its outcomes are one file.

    Attributes:
        name: Name of that file.
        images: What is decoded.
        subset: True for a part of the stratified subset that is measured first.
        variant: What the evaluator calls this part's answers, where a part is one variant.
        seed: Of random choices about its images.
    """

    name: str
    images: ImageSet
    subset: bool = False
    variant: str = ""
    seed: int = 0

    def sample_seeds(self, batch: Batch) -> list[int]:
        """A seed for each image of a batch, from the part's seed and the image's id alone."""
        return [sample_seed(self.seed, self.images.image_id(i)) for i in batch.indices.tolist()]


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
    return list(evaluator.measure(tally(outcomes_file(ctx.folder, part.name) for part in counted), ctx))


def _is_kept(part: Part, ctx: Context) -> bool:
    file = outcomes_file(ctx.folder, part.name)
    if not file.exists():
        return False
    ids = [part.images.image_id(i) for i in range(len(part.images))]
    if read_outcomes(file)["id"].to_pylist() != ids:  # parts cut otherwise would count images twice, or never
        raise ValueError(f"{file} holds other images than this part's {len(ids)}; delete it and run again")
    return True


def _one_pass(
    evaluator: SetEvaluator, part: Part, models: Mapping[str, Backbone], contexts: Mapping[str, Context]
) -> None:
    """Decode the part once, ask every model, and keep the answers."""
    groups: dict[Transform, dict[str, Backbone]] = defaultdict(dict)
    for name, model in models.items():
        groups[evaluator.transform(model)][name] = model
    machine = next(iter(contexts.values())).machine
    outputs, labels = run_pass(partial(_answers, evaluator, part, groups), part.images, list(groups), machine=machine)
    for name in models:
        answers = {variant: values for (model, variant), values in outputs.items() if model == name}
        contexts[name].save_outcomes(part.images, labels, answers, part.name)
    make_accelerator(machine).wait_for_everyone()  # before another process looks for the file


def _answers(
    evaluator: SetEvaluator, part: Part, groups: Mapping[Transform, Mapping[str, Backbone]], batch: Batch
) -> Iterator[tuple[tuple[str, str], Tensor]]:
    for transform, models in groups.items():
        for name, variant, values in evaluator.answers(part, models, batch.images[transform], batch):
            yield (name, variant), values


def split_parts(
    images: ImageSet, *, seed: int = 0, subset: int = 0, prefix: str = "images", variant: str = "", size: int = ENOUGH
) -> list[Part]:
    """A set in parts: first a subset in which all classes are as equally frequent as can be, then the rest.

    Args:
        images: The set.
        seed: Of the choice of the subset, and of the parts.
        subset: Images of the subset; 0, or at least as many as there are, for none.
        prefix: Of the parts' names.
        variant: Of the parts.
        size: Most images in a later part.
    """
    first = sorted(stratified_order(images, seed)[:subset]) if 0 < subset < len(images) else []
    chosen = set(first)
    rest = [place for place in range(len(images)) if place not in chosen]
    common: dict[str, Any] = {"variant": variant, "seed": seed}
    parts = [Part(name=f"{prefix}-subset", images=images.take(first), subset=True, **common)] if first else []
    for number, start in enumerate(range(0, len(rest), size)):
        chunk = images.take(rest[start : start + size])
        parts.append(Part(name=f"{prefix}-{number:03d}", images=chunk, **common))
    return parts


def stratified_order(images: ImageSet, seed: int) -> list[int]:
    """Places of a set in an order whose every beginning holds all classes equally often, to one image.

    Sets that cannot tell their labels without decoding are only shuffled.
    """
    draw = random.Random(stable_hash(["order", seed]))
    places = list(range(len(images)))
    draw.shuffle(places)
    labels = images.labels()
    if labels is None:
        return places
    seen: dict[int, int] = defaultdict(int)
    rank = {}
    for place in places:
        rank[place] = seen[labels[place]]
        seen[labels[place]] += 1
    return sorted(places, key=rank.__getitem__)  # stable: within a rank, classes stay shuffled
