"""The schedule of a training: steps and micro-batches, sampling order, learning rate, weight decay."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cim_bench.spec import AnyTraining, IterationTraining, Machine, Training


@dataclass(frozen=True)
class Steps:
    """Number of optimiser steps, and how each effective batch is split over processes and passes.

    Attributes:
        per_epoch: Steps an epoch.
        total: Steps of the whole training.
        micro_batch: Images a process takes in one pass.
        accumulation: Passes a process makes in one step.
    """

    per_epoch: int
    total: int
    micro_batch: int
    accumulation: int

    @classmethod
    def plan(cls, samples: int, training: AnyTraining, machine: Machine, processes: int) -> Steps:
        """Derive accumulation so that the effective batch is exactly the recipe's.

        Args:
            samples: Training images.
            training: The schedule.
            machine: Limits the micro-batch.
            processes: Processes that share each step.

        Examples:
            >>> training = Training(epochs=3, effective_batch=64, base_lr=1e-3)
            >>> Steps.plan(1000, training, Machine(micro_batch=16), processes=2)
            Steps(per_epoch=15, total=45, micro_batch=16, accumulation=2)

        Raises:
            ValueError: If the data is smaller than one batch, or the batch does not divide over devices and passes.
        """
        batch = training.effective_batch
        if samples < batch:
            raise ValueError(
                f"{samples} training images are fewer than one effective batch of {batch}; "
                f"lower --training.effective-batch"
            )
        if batch % processes:
            raise ValueError(
                f"an effective batch of {batch} does not divide over {processes} processes; use a divisor of {batch}"
            )
        share = batch // processes
        largest = min(share, machine.micro_batch)
        micro = next(m for m in range(largest, 0, -1) if share % m == 0)
        if 4 * micro < largest:
            raise ValueError(
                f"{share} images a process and step divide into no passes of up to {largest} but of {micro}, which is "
                "slow and spoils batch statistics; choose another effective_batch, or a divisor as machine.micro_batch"
            )
        per_epoch = samples // batch
        total = per_epoch * training.epochs if isinstance(training, Training) else training.iterations
        return cls(per_epoch=per_epoch, total=total, micro_batch=micro, accumulation=share // micro)


class StepSampler:
    """Micro-batches of (draw, index), from a step on: one stream over all epochs, the last partial batch dropped.

    An epoch is as many samples as there are images. With `repeats` each image it shows comes that many times in a
    row under different draws, ``epoch * repeats + copy``; neighbours go to different passes and processes (timm,
    ``RepeatAugSampler``). Passes do not depend on whether processes or accumulation make them.
    """

    def __init__(
        self,
        samples: int,
        steps: Steps,
        *,
        batch: int,
        seed: int,
        start: int,
        rank: int,
        processes: int,
        repeats: int = 1,
    ) -> None:
        self.samples, self.steps, self.batch, self.seed = samples, steps, batch, seed
        self.start, self.rank, self.processes, self.repeats = start, rank, processes, repeats

    def __len__(self) -> int:
        return (self.steps.total - self.start) * self.steps.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        passes = self.processes * self.steps.accumulation
        for step in range(self.start, self.steps.total):
            epoch, position = divmod(step, self.steps.per_epoch)
            if step == self.start or position == 0:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                order = torch.randperm(self.samples, generator=generator).tolist()
            begin = position * self.batch
            places = [divmod(place, self.repeats) for place in range(begin, begin + self.batch)]
            drawn = [(epoch * self.repeats + copy, order[image]) for image, copy in places]
            for first in range(self.rank, passes, self.processes):
                yield drawn[first::passes]


def validation_interval(steps: Steps, training: AnyTraining) -> int:
    """Steps between two looks at the validation split: a fifth of the epochs, or as many as `validations` leaves."""
    if isinstance(training, Training):
        return steps.per_epoch * math.ceil(training.epochs / 5)
    return math.ceil(training.iterations / training.validations)


def learning_rate(step: int, *, per_epoch: int, training: AnyTraining) -> float:
    """Learning rate of one optimiser step, counted from 0 over the whole training.

    Args:
        step: Which.
        per_epoch: Steps an epoch.
        training: The schedule.

    Examples:
        The peak of 1.5e-4 · 512 / 256 is reached after one epoch of ten steps, and half of it midway to the end.

        >>> training = Training(epochs=11, warmup_epochs=1, effective_batch=512, base_lr=1.5e-4)
        >>> [round(learning_rate(step, per_epoch=10, training=training), 6) for step in (0, 5, 10, 60, 110)]
        [0.0, 0.00015, 0.0003, 0.00015, 0.0]
    """
    if isinstance(training, IterationTraining):
        return _polynomial_rate(step, training)
    return _cosine_rate(step / per_epoch, training)


def _cosine_rate(epoch: float, training: Training) -> float:
    """Linear warm-up, then half a cosine to `min_lr`, or a fall at milestones.

    Sources: facebookresearch/mae, util/lr_sched.py; timm, scheduler/cosine_lr.py (`Training.warmup_prefix`).
    """
    peak = training.peak_lr
    if epoch < training.warmup_epochs:
        return peak * epoch / training.warmup_epochs
    if training.milestones:  # microsoft/SimMIM, lr_scheduler.py, TRAIN.LR_SCHEDULER.GAMMA 0.1
        return peak * 0.1 ** sum(epoch >= milestone for milestone in training.milestones)
    begin = training.warmup_epochs if training.warmup_prefix else 0.0
    progress = (epoch - begin) / max(training.epochs - begin, 1e-12)
    return training.min_lr + (peak - training.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def _polynomial_rate(step: int, training: IterationTraining) -> float:
    """A polynomial from the peak to 0 over all iterations, times a linear factor during the warm-up.

    Source: open-mmlab/mmcv 1.x, runner/hooks/lr_updater.py (``PolyLrUpdaterHook``, ``get_warmup_lr`` of ``linear``).
    """
    rate = training.lr * math.pow(1 - step / training.iterations, training.power)
    if step < training.warmup_iterations:
        rate *= 1 - (1 - step / training.warmup_iterations) * (1 - training.warmup_ratio)
    return rate


def weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices decay; biases, norms, position and class tokens (at most 1-D, or so named) do not."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim <= 1 or name.endswith(("pos_embed", "cls_token"))
            (free if plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
