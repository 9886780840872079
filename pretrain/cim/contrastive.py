"""CIM's optional contrastive term: each exemplar's class token against the context's, over all processes."""

from __future__ import annotations

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_bench.pretrain.cim.ema import ema_update

HIDDEN, OUT, TEMPERATURE = 4096, 256, 0.2  # CIM's public code, models/cim.py, build_mlp and T


class ContrastiveHead(nn.Module):
    """Projector, its moving average for the context, and predictor.

    Args:
        dim: Channels of the class tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projector, self.predictor = _mlp(3, dim), _mlp(2, OUT)
        self.target = copy.deepcopy(self.projector).requires_grad_(False)

    def forward(self, exemplars: Tensor, context: Tensor) -> Tensor:
        """InfoNCE times 2T, summed over exemplars.

        Args:
            exemplars: (B, E, D) class tokens of the online encoder.
            context: (B, D) class tokens of the target encoder.
        """
        with torch.no_grad():
            keys, offset = _gather(F.normalize(self.target(context), dim=1))
        labels = offset + torch.arange(len(context), device=context.device)
        loss = context.new_zeros(())
        for tokens in exemplars.unbind(1):  # one at a time: BatchNorm sees one exemplar of each image
            queries = F.normalize(self.predictor(self.projector(tokens)), dim=1)
            loss = loss + F.cross_entropy(queries @ keys.T / TEMPERATURE, labels) * (2 * TEMPERATURE)
        return loss

    def update(self, momentum: float) -> None:
        """Move the target projector towards the online one."""
        ema_update(self.target, self.projector, momentum)


def _mlp(layers: int, dim: int) -> nn.Sequential:
    widths = [dim, *[HIDDEN] * (layers - 1), OUT]
    parts: list[nn.Module] = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        last = i == layers - 1
        parts += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after, affine=not last)]
        parts += [] if last else [nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


def _gather(keys: Tensor) -> tuple[Tensor, int]:
    """Keys of all processes in rank order, and where this process's begin."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return keys, 0
    parts = [torch.empty_like(keys) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, keys.contiguous())
    return torch.cat(parts), torch.distributed.get_rank() * len(keys)
