"""Frozen features of one network, of its last output and of blocks inside it, for the protocols that read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from cim_bench.models.backbone import Backbone, Feature
from cim_bench.records.facets import Facets


def frozen_features(model: Backbone, kind: Feature, blocks: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """From images (N, 3, H, W) in [0, 1] to (N, 1 + blocks, D): the last output's vector, then those of the blocks.

    Args:
        model: The network.
        kind: Which vector stands for an image.
        blocks: Counted from 1.
    """

    def extract(images: Tensor) -> Tensor:
        return model.features(images, kind, blocks) if blocks else model.feature(images, kind)[:, None]

    return extract


def block_facets(blocks: Sequence[int]) -> list[Facets]:
    """What tells the vectors of `frozen_features` apart: nothing for the last output's."""
    return [{}, *({"block": block} for block in blocks)]
