"""The one training loop: pre-training, fine-tuning and probing all pass through `fit`.

Every random choice is a function of (seed, epoch, sample) or (seed, step), never of a generator's history, so
a run that was killed and started again ends with the same weights as one that was not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cim_bench.common.interrupts import Held, held_back
from cim_bench.common.progress import Meter
from cim_bench.common.seeds import seed_all
from cim_bench.common.streams import say
from cim_bench.engine.devices import make_accelerator, one_thread
from cim_bench.engine.log import TrainingLog
from cim_bench.engine.optimizers import make_optimizer
from cim_bench.engine.resume import RESUME, read_resume, write_resume
from cim_bench.engine.samples import TrainSet
from cim_bench.engine.schedule import Steps, StepSampler, learning_rate, validation_interval
from cim_bench.spec import AnyTraining, Machine, Training

SIGNALLED = "signalled"  # share of processes that were asked to end; travels with a step's outputs
MOST_NAMED = 64  # images, in an error
MicroBatch = dict[str, Tensor]  # the samples of one pass, stacked by the loader


@runtime_checkable
class TrainsOnFeatures(Protocol):
    """A model whose ``forward`` trains a head on features of a frozen network, which it makes pass by pass.

    The head then sees the whole effective batch at once, on every process, and so do its batch statistics.
    """

    def frozen_features(self, batch: MicroBatch) -> MicroBatch:
        """What ``forward`` takes, from the samples of one pass; without gradients."""
        ...


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
        training: AnyTraining,
        machine: Machine,
        seed: int,
        folder: Path,
        key: str,
        title: str,
    ) -> None:
        self.training, self.machine, self.seed, self.folder, self.title = training, machine, seed, folder, title
        self.key = key
        self.samples, self.raw = samples, model
        self.engine = make_accelerator(machine, training.precision)
        self.steps = Steps.plan(len(samples), training, machine, self.engine.num_processes)
        optimizer = make_optimizer(groups, training)
        compiled = torch.compile(model) if machine.compile else model
        self.model, self.optimizer = self.engine.prepare(compiled, optimizer)
        self.parameters = [p for group in groups for p in group["params"]]
        self.splits = 1
        self.held, self.signalled = Held(), 0.0
        self.last_epoch: dict[str, float] = {}  # sums of the outputs of its steps, so far
        self.start = self._resume()

    def run(
        self, after_step: Callable[[float], None] | None, validate: Callable[[], dict[str, float]] | None
    ) -> dict[str, float]:
        """Train from the resume point to the end; means of the outputs over the last epoch."""
        steps, main = self.steps, self.engine.is_main_process
        sampler = StepSampler(
            len(self.samples),
            steps,
            batch=self.training.effective_batch,
            seed=self.seed,
            start=self.start,
            rank=self.engine.process_index,
            processes=self.engine.num_processes,
            repeats=self.training.repeats if isinstance(self.training, Training) else 1,
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
        every = validation_interval(steps, self.training)
        saved, began, since = time.monotonic(), time.monotonic(), self.start
        with (
            Meter(self.title, steps.total, start=self.start, show=main) as meter,
            TrainingLog(self.folder, self.start, main) as log,
            held_back(patient=self.engine.num_processes > 1) as self.held,
        ):
            for step in range(self.start, steps.total):
                outputs = self._step(step, [next(batches) for _ in range(steps.accumulation)])
                if after_step is not None:
                    after_step(step / steps.total)
                if step >= steps.total - steps.per_epoch:
                    self.last_epoch = {key: self.last_epoch.get(key, 0.0) + value for key, value in outputs.items()}
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
                if self._asked_to_end() and done < steps.total:
                    try:
                        self._save(done)
                    finally:
                        self.held.act()
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            raise NonFiniteLossError(f"{self.title}: weights are not finite after {steps.total} steps; lower the rate")
        for buffer in self.raw.buffers():  # since its last pass each process has BatchNorm statistics of its own
            broadcast(buffer)
        return {key: value / steps.per_epoch for key, value in self.last_epoch.items()}

    def _asked_to_end(self) -> bool:
        """Whether a signal came; of several processes all give the same answer after the same step."""
        return self.held.came if self.engine.num_processes == 1 else self.signalled > 0

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
        norm = self.engine.clip_grad_norm_(
            self.parameters, math.inf if self.training.clip_grad is None else self.training.clip_grad
        )
        self.optimizer.step()
        return {"lr": lr, "grad_norm": float(norm), **outputs}

    def _backward(self, step: int, batches: list[MicroBatch]) -> dict[str, float]:
        """Gradients of the mean loss over the effective batch, and its mean outputs over all processes."""
        self.optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        passes = [(n, piece) for n, batch in enumerate(batches) for piece in enumerate(_split(batch, self.splits))]
        if isinstance(self.raw, TrainsOnFeatures):
            passes = [(0, (0, self._features(self.raw, [batch for _, (_, batch) in passes])))]
        share = sum(len(batch["index"]) for _, (_, batch) in passes)
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
        sums[SIGNALLED] = torch.tensor(float(self.held.came), device=self.engine.device)
        means = self.engine.reduce(sums, reduction="mean")
        self.signalled = float(means.pop(SIGNALLED))
        return {key: float(value) for key, value in means.items()}

    def _features(self, model: TrainsOnFeatures, batches: Sequence[MicroBatch]) -> MicroBatch:
        """Features of the whole effective batch on every process, in an order that does not depend on passes."""
        parts: list[MicroBatch] = []
        for batch in batches:
            with torch.no_grad(), self.engine.autocast():
                moved = {key: value.to(self.engine.device, non_blocking=True) for key, value in batch.items()}
                parts.append({**model.frozen_features(moved), "index": moved["index"]})
        whole = {key: self.engine.gather(torch.cat([part[key] for part in parts])) for key in parts[0]}
        order = whole["index"].argsort(stable=True)
        return {key: value[order] for key, value in whole.items()}

    def _stop(self, step: int, loss: float, indices: Sequence[int]) -> None:
        more = f" and {len(indices) - MOST_NAMED} more" if len(indices) > MOST_NAMED else ""
        files = ", ".join(self.samples.image_id(i) for i in indices[:MOST_NAMED]) + more
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
            kept = {"model": self.raw.state_dict(), "optimizer": self.optimizer.state_dict(), "scaler": scaler}
            write_resume(self.folder, {"key": self.key, "step": step, "last_epoch": self.last_epoch, **kept})
        self.engine.wait_for_everyone()

    def _resume(self) -> int:
        """The step to go on with; a resume point that is not this run's, or damaged, is set aside."""
        path = self.folder / RESUME
        if not path.exists():
            return 0
        state = None
        try:
            state = read_resume(path, self.key, self.steps.total, self.raw, self.optimizer.state_dict())
        except ValueError as error:
            problem = str(error)
        self.engine.wait_for_everyone()  # all have read it
        if state is None:
            if self.engine.is_main_process:
                aside = path.with_name(f"{RESUME}.unusable")
                path.replace(aside)
                say(f"{self.title}: {problem}; it is kept as {aside.name}, and training starts anew")
            return 0
        self.raw.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self.engine.scaler is not None:
            self.engine.scaler.load_state_dict(state["scaler"])
        self.last_epoch = dict(state["last_epoch"])
        return int(state["step"])


def fit(
    model: nn.Module,
    samples: TrainSet,
    groups: list[dict[str, Any]],
    *,
    training: AnyTraining,
    machine: Machine,
    seed: int,
    folder: Path,
    key: str = "",
    title: str,
    after_step: Callable[[float], None] | None = None,
    validate: Callable[[], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Train `model` in place, resuming from `folder` if a run was cut off there.

    Args:
        model: ``forward(batch)`` returns a dict with the scalar ``loss`` and further scalars to log. One that
            `TrainsOnFeatures` is given the features of the whole effective batch.
        samples: Training samples by (draw, index); the draw is the epoch, unless an epoch repeats images.
        groups: Optimiser groups; ``lr_scale`` multiplies the schedule, ``weight_decay`` is used as it stands.
        training: The schedule.
        machine: How it is fitted to this machine.
        seed: Of order, augmentation and dropout.
        folder: Gets ``metrics.jsonl``, TensorBoard events and, while training lasts, ``resume.pt``.
        key: The job's: a resume point of another one is not gone on with.
        title: Names the work in progress lines and errors.
        after_step: Called with the finished fraction after each optimiser step.
        validate: Called several times in training (`validation_interval`) and at its end; its numbers go to the log.

    Returns:
        What the model returned, learning rate and gradient norm: means over the steps of the last epoch.

    Raises:
        NonFiniteLossError: With step, files and last good state.
        ValueError: If batch, data and devices do not fit together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = Fit(
        model, samples, groups, training=training, machine=machine, seed=seed, folder=folder, key=key, title=title
    )
    last_epoch = run.run(after_step, validate)
    run.engine.wait_for_everyone()
    return last_epoch


def clear_resume(folder: Path) -> None:
    """Remove the resume point of a finished run, once its result is safe."""
    (folder / RESUME).unlink(missing_ok=True)


def _split(batch: MicroBatch, parts: int) -> list[MicroBatch]:
    size = math.ceil(len(batch["index"]) / parts)
    return [{key: value[i : i + size] for key, value in batch.items()} for i in range(0, len(batch["index"]), size)]
