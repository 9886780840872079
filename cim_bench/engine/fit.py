"""The one training loop: pre-training, fine-tuning and probing all pass through `fit`.

Every random choice is a function of (seed, epoch, sample) or (seed, step), never of a generator's history, so
a run that was killed and started again ends with the same weights as one that was not.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cim_bench.common.interrupts import held_back
from cim_bench.common.progress import Meter
from cim_bench.common.seeds import seed_all
from cim_bench.common.streams import say
from cim_bench.engine.devices import make_accelerator, one_thread
from cim_bench.engine.log import TrainingLog
from cim_bench.engine.samples import TrainSet
from cim_bench.engine.schedule import Steps, StepSampler, learning_rate
from cim_bench.spec import Machine, Training

RESUME = "resume.pt"
MicroBatch = dict[str, Tensor]  # the samples of one pass, stacked by the loader


class NonFiniteLossError(ArithmeticError):
    """The loss or the last weights became NaN or infinite; the message names the step, and what can be done."""


class Fit:
    """State of one training run; arguments as of `fit`."""

    def __init__(
        self,
        model: nn.Module,
        samples: TrainSet,
        groups: list[dict[str, Any]],
        *,
        training: Training,
        machine: Machine,
        seed: int,
        folder: Path,
        title: str,
    ) -> None:
        self.training, self.machine, self.seed, self.folder, self.title = training, machine, seed, folder, title
        self.samples, self.raw = samples, model
        self.engine = make_accelerator(machine, training.precision)
        self.steps = Steps.plan(len(samples), training, machine, self.engine.num_processes)
        kwargs: dict[str, Any] = (
            {"betas": training.betas}
            if "adam" in training.optimizer or training.optimizer == "lamb"
            else {"momentum": training.momentum}
        )
        optimizer = create_optimizer_v2(groups, opt=training.optimizer, lr=training.base_lr, weight_decay=0.0, **kwargs)
        compiled = torch.compile(model) if machine.compile else model
        self.model, self.optimizer = self.engine.prepare(compiled, optimizer)
        self.parameters = [p for group in groups for p in group["params"]]
        self.splits = 1
        self.start = self._resume()

    def run(self, after_step: Callable[[float], None] | None, validate: Callable[[], dict[str, float]] | None) -> None:
        """Train from the resume point to the end."""
        steps, main = self.steps, self.engine.is_main_process
        sampler = StepSampler(
            len(self.samples),
            steps,
            batch=self.training.effective_batch,
            seed=self.seed,
            start=self.start,
            rank=self.engine.process_index,
            processes=self.engine.num_processes,
            repeats=self.training.repeats,
        )
        workers = self.machine.loader_processes
        loader: DataLoader[dict[str, Any]] = DataLoader(
            self.samples,  # type: ignore[arg-type]  # a Dataset by its two methods
            batch_sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=one_thread,
            pin_memory=self.engine.device.type == "cuda",
        )
        batches = iter(loader)
        every = steps.per_epoch * math.ceil(self.training.epochs / 5)
        saved, began, since = time.monotonic(), time.monotonic(), self.start
        with (
            Meter(self.title, steps.total, start=self.start, show=main) as meter,
            TrainingLog(self.folder, self.start, main) as log,
            # of several processes each would stop after another step
            held_back() if self.engine.num_processes == 1 else contextlib.nullcontext(_nothing) as let_act,
        ):
            for step in range(self.start, steps.total):
                outputs = self._step(step, [next(batches) for _ in range(steps.accumulation)])
                if after_step is not None:
                    after_step(step / steps.total)
                done, now = step + 1, time.monotonic()
                if done % self.machine.log_every == 0 or done == steps.total:
                    rate = (done - since) * self.training.effective_batch / max(now - began, 1e-9)
                    began, since = now, done
                    log.write(step, {**outputs, "images_per_s": rate})
                if validate is not None and (done % every == 0 or done == steps.total):
                    log.write(step, validate())
                meter.step(note=f"loss {outputs['loss']:.4f}")
                if now - saved >= self.machine.save_every_s and done < steps.total:
                    self._save(done)
                    saved = time.monotonic()
                if done < steps.total:
                    let_act(functools.partial(self._save, done))
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            raise NonFiniteLossError(f"{self.title}: weights are not finite after {steps.total} steps; lower the rate")
        for buffer in self.raw.buffers():  # since its last pass each process has BatchNorm statistics of its own
            broadcast(buffer)

    def _step(self, step: int, batches: list[MicroBatch]) -> dict[str, float]:
        """One optimiser step over all micro-batches; out of memory halves the passes and tries again."""
        lr = learning_rate(step, per_epoch=self.steps.per_epoch, training=self.training)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        while True:
            try:
                outputs = self._backward(step, batches)
                break
            except torch.OutOfMemoryError:
                if self.splits >= self.steps.micro_batch:
                    raise
                self.splits *= 2
                say(
                    f"{self.title}: out of memory; passes of {self.steps.micro_batch // self.splits} images "
                    f"from now on, the effective batch stays {self.training.effective_batch}"
                )
        norm = self.engine.clip_grad_norm_(self.parameters, self.training.clip_grad or math.inf)
        self.optimizer.step()
        return {"lr": lr, "grad_norm": float(norm), **outputs}

    def _backward(self, step: int, batches: list[MicroBatch]) -> dict[str, float]:
        """Gradients of the mean loss over the effective batch, and its mean outputs over all processes."""
        self.optimizer.zero_grad()
        share = self.steps.micro_batch * self.steps.accumulation
        sums: dict[str, Tensor] = {}
        passes = [(n, piece) for n, batch in enumerate(batches) for piece in enumerate(_split(batch, self.splits))]
        for position, (number, (piece, batch)) in enumerate(passes):
            place = number * self.engine.num_processes + self.engine.process_index  # as one process would count
            seed_all(self.seed, "step", step, place, piece)
            names = batch["index"]
            moved = {key: value.to(self.engine.device, non_blocking=True) for key, value in batch.items()}
            last = position == len(passes) - 1
            with contextlib.nullcontext() if last else self.engine.no_sync(self.model), self.engine.autocast():
                outputs = self.model(moved)
            weight = len(names) / share
            if not torch.isfinite(outputs["loss"]):
                self._stop(step, float(outputs["loss"].detach()), names.tolist())
            with contextlib.nullcontext() if last else self.engine.no_sync(self.model):
                self.engine.backward(outputs["loss"] * weight)
            for key, value in outputs.items():
                sums[key] = sums.get(key, torch.zeros((), device=value.device)) + value.detach().float() * weight
        means = self.engine.reduce(sums, reduction="mean")
        return {key: float(value) for key, value in means.items()}

    def _stop(self, step: int, loss: float, indices: Sequence[int]) -> None:
        files = ", ".join(self.samples.image_id(i) for i in indices)
        kept = self.folder / RESUME
        good = f"the last good state is {kept}" if kept.exists() else "no state was saved before it"
        raise NonFiniteLossError(
            f"{self.title}: loss is {loss} at step {step}; {good}; "
            f"lower the learning rate or look at the batch: {files}"
        )

    def _save(self, step: int) -> None:
        """Write the resume point, atomically, from the main process."""
        if self.engine.is_main_process:
            scaler = self.engine.scaler.state_dict() if self.engine.scaler is not None else {}
            state = {
                "step": step,
                "model": self.raw.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler,
            }
            temporary = self.folder / f".{RESUME}.{os.getpid()}"
            torch.save(state, temporary)
            temporary.replace(self.folder / RESUME)
        self.engine.wait_for_everyone()

    def _resume(self) -> int:
        path = self.folder / RESUME
        if not path.exists():
            return 0
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.raw.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self.engine.scaler is not None:
            self.engine.scaler.load_state_dict(state["scaler"])
        return int(state["step"])


def fit(
    model: nn.Module,
    samples: TrainSet,
    groups: list[dict[str, Any]],
    *,
    training: Training,
    machine: Machine,
    seed: int,
    folder: Path,
    title: str,
    after_step: Callable[[float], None] | None = None,
    validate: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Train `model` in place, resuming from `folder` if a run was cut off there.

    Args:
        model: ``forward(batch)`` returns a dict with the scalar ``loss`` and further scalars to log.
        samples: Training samples by (draw, index); the draw is the epoch, unless an epoch repeats images.
        groups: Optimiser groups; ``lr_scale`` multiplies the schedule, ``weight_decay`` is used as it stands.
        training: The schedule.
        machine: How it is fitted to this machine.
        seed: Of order, augmentation and dropout.
        folder: Gets ``metrics.jsonl``, TensorBoard events and, while training lasts, ``resume.pt``.
        title: Names the work in progress lines and errors.
        after_step: Called with the finished fraction after each optimiser step.
        validate: Called about five times in training and at its end; its numbers go to the log.

    Raises:
        NonFiniteLossError: With step, files and last good state.
        ValueError: If batch, data and devices do not fit together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = Fit(model, samples, groups, training=training, machine=machine, seed=seed, folder=folder, title=title)
    run.run(after_step, validate)
    run.engine.wait_for_everyone()


def clear_resume(folder: Path) -> None:
    """Remove the resume point of a finished run, once its result is safe."""
    (folder / RESUME).unlink(missing_ok=True)


def _nothing(_before: Callable[[], None]) -> None:
    """Takes the place of what lets a signal act, where none is held back."""


def _split(batch: MicroBatch, parts: int) -> list[MicroBatch]:
    size = math.ceil(len(batch["index"]) / parts)
    return [{key: value[i : i + size] for key, value in batch.items()} for i in range(0, len(batch["index"]), size)]
