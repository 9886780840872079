"""Fit weights to their architecture: bring positions to its grid, and hold keys and shapes to exactly its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cim_bench.models.backbone import SIZED, create_meta_net
from cim_bench.models.checkpoint import Checkpoint, Meta, content_hash
from cim_bench.models.formats.measure import RequestedArch, input_size
from cim_bench.models.key_contract import check_keys
from cim_bench.models.positions import Interpolation, resample_positions


@dataclass(frozen=True)
class Fitted:
    """A checkpoint, and how its keys came to it.

    Attributes:
        checkpoint: Weights, and their identity with the input size and hash.
        matched: Names that were taken as they are.
        resampled: Names of positions that were brought to another grid.
        missing: Names of counters that were set to 0.
    """

    checkpoint: Checkpoint
    matched: tuple[str, ...]
    resampled: tuple[str, ...]
    missing: tuple[str, ...]


def fit(
    state: Mapping[str, Tensor],
    meta: Meta,
    *,
    size: int | None,
    asked: RequestedArch,
    resample: Interpolation,
    may_lack_counters: bool = False,
) -> Fitted:
    """Weights that fit their architecture exactly; nothing is left at its initialisation.

    Args:
        state: With timm's names, in fp32.
        meta: Identity, with the architecture at the file's own input size.
        size: Input size that the user asks for; ``None``: that of `asked`, or the file's.
        asked: Architecture that the user asks for.
        resample: How positions are brought to another grid.
        may_lack_counters: Whether all of BatchNorm's counters may be missing.

    Raises:
        ValueError: If weights are not finite, or keys and shapes are not those of the architecture.
    """
    broken = sorted(k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all())
    if broken:
        raise ValueError(
            f"{len(broken)} of its {len(state)} tensors hold NaN or infinity, such as {', '.join(broken[:3])}: "
            "the training diverged or the file is damaged; take an earlier checkpoint"
        )
    net = net_of(meta)
    size = input_size(size, asked, meta.arch, net)
    if size != meta.arch.image_size:
        meta = replace(meta, arch=replace(meta.arch, image_size=size))
        net = net_of(meta)
    own = net.state_dict()
    resampled: tuple[str, ...] = ()
    if meta.arch.name.startswith(SIZED):
        state, resampled = resample_positions(state, {name: value.shape for name, value in own.items()}, resample)
    counters = {name: torch.zeros((), dtype=torch.int64) for name in own if name.endswith("num_batches_tracked")}
    missing = tuple(sorted(counters)) if may_lack_counters and not counters.keys() & state.keys() else ()
    state = {**state, **{name: counters[name] for name in missing}}
    check_keys(own, state, what="its state dict")
    state = {k: v.contiguous() for k, v in state.items()}
    matched = tuple(sorted(state.keys() - set(resampled) - set(missing)))
    checkpoint = Checkpoint(state=state, meta=replace(meta, hash=content_hash(state)))
    return Fitted(checkpoint, matched, tuple(sorted(resampled)), missing)


def net_of(meta: Meta) -> nn.Module:
    """The network that a checkpoint is for, without memory for weights."""
    options = {} if meta.global_pool is None else {"global_pool": meta.global_pool}
    net: nn.Module = create_meta_net(meta.arch, num_classes=len(meta.classes), **options)
    return net
