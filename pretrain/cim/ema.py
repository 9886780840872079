"""Exponential moving average of an encoder's weights."""

from __future__ import annotations

import math

import torch
from torch import nn


def cosine_momentum(progress: float, base: float, end: float) -> float:
    """Momentum from `base` to `end` along half a cosine (CIM's public code, models/cim.py, ``iter_update``).

    Args:
        progress: Finished fraction of training in [0, 1).
        base: Value at 0.
        end: Value at 1.

    Examples:
        >>> [round(cosine_momentum(progress, 0.99, 1.0), 4) for progress in (0.0, 0.5, 0.75)]
        [0.99, 0.995, 0.9985]
    """
    return end - (end - base) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """``target = momentum * target + (1 - momentum) * online`` over parameters; buffers are the target's own.

    The running statistics of a target's BatchNorm describe what the target was shown, which need not be what the
    online network was shown (CIM shows it exemplars); so they are never copied (MoCo v3 likewise leaves them alone,
    facebookresearch/moco-v3, moco/builder.py).
    """
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1 - momentum)
