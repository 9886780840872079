"""A pass over images, cut into parts that are kept as they finish."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from cim_bench.common.hashing import stable_hash
from cim_bench.common.seeds import sample_seed
from cim_bench.data.images import ImageSet
from cim_bench.engine.inference import ImageBatch
from cim_bench.records.facets import Facets

ENOUGH = 5_000  # images a part: what a kill can cost


@dataclass(frozen=True, kw_only=True)
class Part:
    """One pass over images; its outcomes are one file.

    Attributes:
        name: Name of that file.
        images: What is decoded.
        subset: True for a part of the stratified subset that is measured first.
        facets: Of this part's answers, where all of them have the same.
        seed: Of random choices about its images.
    """

    name: str
    images: ImageSet
    subset: bool = False
    facets: Facets = field(default_factory=dict)
    seed: int = 0

    def sample_seeds(self, batch: ImageBatch) -> list[int]:
        """A seed for each image of a batch, from the part's seed and the image's id alone."""
        return [sample_seed(self.seed, self.images.image_id(i)) for i in batch.indices.tolist()]


def split_parts(
    images: ImageSet,
    *,
    seed: int = 0,
    subset: int = 0,
    prefix: str = "images",
    facets: Facets | None = None,
    size: int = ENOUGH,
) -> list[Part]:
    """A set in parts: first a subset in which all classes are as equally frequent as can be, then the rest.

    Args:
        images: The set.
        seed: Of the choice of the subset, and of the parts.
        subset: Images of the subset; 0, or at least as many as there are, for none.
        prefix: Of the parts' names.
        facets: Of the parts; none by default.
        size: Most images in a later part.
    """
    first = sorted(stratified_order(images, seed)[:subset]) if 0 < subset < len(images) else []
    chosen = set(first)
    rest = [place for place in range(len(images)) if place not in chosen]
    common: dict[str, Any] = {"facets": facets or {}, "seed": seed}
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
