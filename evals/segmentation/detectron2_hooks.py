"""What happens around the steps of detectron2's trainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cim_bench.common.interrupts import Held
from cim_bench.common.progress import Meter
from cim_bench.engine.log import TrainingLog
from cim_bench.engine.schedule import Steps, learning_rate, validation_interval
from cim_bench.evals.segmentation.detectron2_parts import TrainedSegmentor
from cim_bench.spec import IterationTraining, Machine


@dataclass(kw_only=True)
class Hooks:
    """What happens around detectron2's steps: rate, log, validation, checkpoints.

    Attributes:
        segmentor: What is trained.
        optimizer: Of it.
        checkpoints: detectron2's checkpointer.
        steps: Of the whole training.
        training: The schedule.
        machine: Says when to log and to save.
        log: Open.
        meter: Open.
        held: Signals that wait for the end of a step.
        last_epoch: Gets sums of the outputs of its steps.
        validate: As of `fit`.
        done: Steps.
        saved: Time of the last checkpoint.
    """

    segmentor: TrainedSegmentor
    optimizer: torch.optim.Optimizer
    checkpoints: Any
    steps: Steps
    training: IterationTraining
    machine: Machine
    log: TrainingLog
    meter: Meter
    held: Held
    last_epoch: dict[str, float]
    validate: Callable[[], dict[str, float]]
    done: int = 0
    saved: float = field(default_factory=time.monotonic)

    def made(self, hooks: Any) -> list[Any]:
        """As detectron2's."""
        return [
            hooks.CallbackHook(before_step=self.set_rate, after_step=self.note),
            hooks.EvalHook(validation_interval(self.steps, self.training), self.evaluate),
            hooks.CallbackHook(after_step=self.save),
        ]

    def set_rate(self, trainer: Any) -> None:
        """The learning rate of this step."""
        rate = learning_rate(trainer.iter, per_epoch=self.steps.per_epoch, training=self.training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.segmentor.outputs = {"lr": rate}

    def note(self, trainer: Any) -> None:
        """Log the step, and sum it up in the last epoch."""
        outputs, self.done = self.segmentor.outputs, trainer.iter + 1
        if trainer.iter >= self.steps.total - self.steps.per_epoch:
            for name, value in outputs.items():
                self.last_epoch[name] = self.last_epoch.get(name, 0.0) + value
        if self.done % self.machine.log_every == 0 or self.done == self.steps.total:
            self.log.write(trainer.iter, outputs)
        self.meter.step(note=f"loss {outputs['loss']:.4f}")

    def evaluate(self) -> dict[str, float]:
        """Validate, and log what came out."""
        found = self.validate()
        self.log.write(self.done - 1, found)
        return found

    def save(self, _: Any) -> None:
        """A checkpoint now and then, and before a signal acts."""
        if self.done == self.steps.total:
            return
        if self.held.came or time.monotonic() - self.saved >= self.machine.save_every_s:
            self._write()
        if self.held.came:
            self.held.act()

    def _write(self) -> None:
        """A checkpoint in place of the one before it."""
        name = f"step_{self.done:07d}"
        self.checkpoints.save(name, done=self.done, last_epoch=self.last_epoch)
        for old in Path(self.checkpoints.save_dir).glob("step_*.pth"):
            if old.stem != name:
                old.unlink()
        self.saved = time.monotonic()
