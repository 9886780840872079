"""From a schedule to timm's optimiser."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from cim_bench.spec import AnyTraining


def make_optimizer(groups: list[dict[str, Any]], training: AnyTraining) -> torch.optim.Optimizer:
    """An optimiser by its name; those like Adam take `betas`, others `momentum`.

    Args:
        groups: With a ``weight_decay`` of their own.
        training: The schedule.
    """
    like_adam = "adam" in training.optimizer or training.optimizer == "lamb"
    kwargs: dict[str, Any] = {"betas": training.betas} if like_adam else {"momentum": training.momentum}
    made: torch.optim.Optimizer = create_optimizer_v2(
        groups, opt=training.optimizer, lr=training.peak_lr, weight_decay=0.0, **kwargs
    )
    return made


def check_optimizer(training: AnyTraining, name: str) -> None:
    """Try whether timm makes the optimiser of a schedule.

    Args:
        training: The schedule.
        name: What the sentence calls it.

    Raises:
        ValueError: If timm has no such optimiser, or it takes other arguments.
    """
    try:
        make_optimizer([{"params": [nn.Parameter(torch.zeros(1))], "weight_decay": 0.0}], training)
    except Exception as error:  # timm asserts and raises whatever its optimisers do
        raise ValueError(
            f"{name}.optimizer is {training.optimizer!r}, which does not work here: {error}; "
            "give a name of timm.optim, such as adamw, sgd, lars or lamb"
        ) from error
