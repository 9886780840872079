"""Training and scoring of segmentation by detectron2's own machinery; the only file that imports detectron2.

`fit` and `score` stand beside `cim_bench.engine.fit.fit` and `cim_bench.evals.segmentation.scoring.score`. detectron2's
are the catalogs of data sets, the loaders, the registry of meta-architectures, ``SimpleTrainer`` or ``AMPTrainer`` with
their hooks, the checkpoints, ``inference_on_dataset`` and ``SemSegEvaluator``. The project's are the network and its
loss, transforms, windows, optimiser, schedule and every random draw: both engines train to the same weights.

Read at facebookresearch/detectron2 @02b5c4e: ``engine/train_loop.py``, ``engine/hooks.py``, ``data/build.py``,
``evaluation/sem_seg_evaluation.py``.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from cim_bench.common.interrupts import Held, held_back
from cim_bench.common.progress import Meter
from cim_bench.common.seeds import seed_all
from cim_bench.data.segmentation import IGNORED, SegmentationSet
from cim_bench.data.transforms import to_uint8
from cim_bench.engine.devices import make_accelerator
from cim_bench.engine.fit import NonFiniteLossError
from cim_bench.engine.log import TrainingLog
from cim_bench.engine.optimizers import make_optimizer
from cim_bench.engine.schedule import Steps, StepSampler, learning_rate, validation_interval
from cim_bench.evals.metrics import confusion_matrix
from cim_bench.evals.segmentation.samples import SegmentationSamples
from cim_bench.evals.segmentation.scoring import Keep, Scored, Scorer
from cim_bench.evals.segmentation.transforms import resize_to_bound
from cim_bench.records.confusions import Cells, class_sums, miou_present, to_cells
from cim_bench.spec import IterationTraining, Machine, SlidingTest

TOLERANCE = 1e-6  # between detectron2's mIoU and ours of the same predictions, as fractions
FOLDER = "detectron2"  # of checkpoints, in the job's folder
_PARTS = ("checkpoint", "data", "engine", "evaluation", "modeling", "utils.events")
Record = dict[str, Any]


def load_detectron2() -> Any:
    """The package, with the parts that are used here.

    Raises:
        ValueError: Saying how to install it.
    """
    try:
        package = importlib.import_module("detectron2")
        for part in _PARTS:
            importlib.import_module(f"detectron2.{part}")
    except ImportError as error:  # of pkg_resources, too: setuptools 81 dropped it
        raise ValueError(
            f"engine detectron2 does not run here ({error}): pip install 'setuptools<81' wheel, then pip install "
            "--no-build-isolation 'git+https://github.com/facebookresearch/detectron2'; or set engine to own"
        ) from error
    # it would log a traceback of every error that is reported in one sentence
    logging.getLogger("detectron2").setLevel(logging.CRITICAL)
    for architecture in (TrainedSegmentor, ScoredSegmentor):
        if architecture.__name__ not in package.modeling.META_ARCH_REGISTRY:
            package.modeling.META_ARCH_REGISTRY.register(architecture)
    return package


def check(training: IterationTraining, machine: Machine) -> None:
    """Refuse what detectron2's trainers do not do.

    Raises:
        ValueError: Naming the setting; or if detectron2 is not installed.
    """
    load_detectron2()
    engine = make_accelerator(machine)
    if engine.num_processes > 1:
        raise ValueError("engine detectron2 trains in one process here; set machine.processes to 1, or engine to own")
    if machine.micro_batch < training.effective_batch:
        raise ValueError(
            f"engine detectron2 makes one pass a step: set machine.micro_batch to {training.effective_batch} or more, "
            "or engine to own"
        )
    if training.precision != "fp32" and engine.device.type != "cuda":
        raise ValueError(
            f"detectron2's AMPTrainer needs a GPU for training.precision {training.precision!r}; set fp32, or "
            "engine to own"
        )


class TrainedSegmentor(nn.Module):
    """Meta-architecture of training: the network with its loss, whose draws depend on the seed and the step alone.

    Args:
        model: From a batch of ``image`` (B, 3, c, c) and ``mask`` (B, c, c), both uint8, to ``loss`` and more.
        seed: Of the run.
        step: The trainer's.
    """

    def __init__(self, model: nn.Module, seed: int, step: Callable[[], int]) -> None:
        super().__init__()
        self.model, self.seed, self.step = model, seed, step
        self.outputs: dict[str, float] = {}

    def forward(self, inputs: Sequence[Record]) -> dict[str, Tensor]:
        """Losses, of which detectron2 takes the sum: ours has its weights in it already."""
        device = next(self.model.parameters()).device
        batch = {
            "image": torch.stack([one["image"] for one in inputs]).to(device),
            "mask": torch.stack([one["sem_seg"] for one in inputs]).to(device),
        }
        seed_all(self.seed, "step", self.step(), 0, 0)  # as `cim_bench.engine.fit` does before its first pass
        outputs: Mapping[str, Tensor] = self.model(batch)
        self.outputs = {name: float(value.detach()) for name, value in outputs.items()}
        return {"loss": outputs["loss"]}


class ScoredSegmentor(nn.Module):
    """Meta-architecture of testing: windows over each image, and logits of its own size.

    Args:
        network: What `scorer` asks.
        scorer: Of one way of testing.
    """

    def __init__(self, network: nn.Module, scorer: Scorer) -> None:
        super().__init__()
        self.network, self.scorer = network, scorer

    def forward(self, inputs: Sequence[Record]) -> list[dict[str, Tensor]]:
        """``sem_seg``: (classes, H, W) logits of each image."""
        found = []
        for one in inputs:
            (logits,) = self.scorer.ways(one["index"], one["image"], one["sem_seg"])
            size = (one["height"], one["width"])
            found.append({"sem_seg": F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]})
        return found


def register(images: SegmentationSet) -> tuple[str, list[Record]]:
    """Enter a set into detectron2's catalogs; returns the name that it has there, and its records."""
    data = load_detectron2().data
    name = f"cim_bench/{images.name}/{images.split}/{images.fingerprint}"
    records = [
        {
            "file_name": str(file),
            "sem_seg_file_name": str(annotation),
            "image_id": images.image_id(index),
            "index": index,
        }
        for index, (file, annotation) in enumerate(images.files)
    ]
    if name in data.DatasetCatalog.list():
        data.DatasetCatalog.remove(name)
        data.MetadataCatalog.remove(name)
    data.DatasetCatalog.register(name, lambda: records)
    data.MetadataCatalog.get(name).set(
        stuff_classes=list(images.classes), ignore_label=IGNORED, evaluator_type="sem_seg"
    )
    return name, records


class TrainMapper:
    """detectron2's mapper of training: a record and its draw to an augmented sample.

    Args:
        samples: Ours.
    """

    def __init__(self, samples: SegmentationSamples) -> None:
        self.samples = samples

    def __call__(self, record: Record) -> Record:
        """``image`` (3, c, c) and ``sem_seg`` (c, c), uint8, beside what the record holds."""
        sample = self.samples[record["draw"], record["index"]]
        height, width = sample["mask"].shape
        return {**record, "image": sample["image"], "sem_seg": sample["mask"], "height": height, "width": width}


class ScoreMapper:
    """detectron2's mapper of testing: a record to the resized image, with the size that it had.

    Args:
        images: The set.
        test: Its scale.
    """

    def __init__(self, images: SegmentationSet, test: SlidingTest) -> None:
        self.images, self.test = images, test

    def __call__(self, record: Record) -> Record:
        """``image`` (3, h, w) and ``sem_seg`` (H, W), uint8, beside what the record holds."""
        image, mask = self.images.read(record["index"])
        pixels = resize_to_bound(to_uint8(image), self.test.scale, antialias=self.test.antialias)
        height, width = mask.shape
        return {**record, "image": pixels, "sem_seg": mask, "height": height, "width": width}


class _Drawn(Dataset[Record]):
    """Mapped records by (draw, index): detectron2's own ``MapDataset`` knows whole numbers alone."""

    def __init__(self, records: Sequence[Record], mapper: Callable[[Record], Record]) -> None:
        self.records, self.mapper = records, mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, where: tuple[int, int]) -> Record:
        draw, index = where
        return self.mapper({**self.records[index], "draw": draw})


class _Order(Sampler[tuple[int, int]]):
    """(draw, index) one by one, in the order of the project's own engine; detectron2 batches them again."""

    def __init__(self, batches: StepSampler) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches) * self.batches.batch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for batch in self.batches:
            yield from batch


def fit(
    model: nn.Module,
    samples: SegmentationSamples,
    groups: list[dict[str, Any]],
    *,
    training: IterationTraining,
    machine: Machine,
    seed: int,
    folder: Path,
    key: str = "",
    title: str,
    validate: Callable[[], dict[str, float]],
) -> dict[str, float]:
    """Train `model` in place under detectron2's trainer; arguments, result and errors are those of the own engine's.

    A run that was cut off goes on from detectron2's last checkpoint, to the same weights.
    """
    check(training, machine)
    detectron2, steps = load_detectron2(), Steps.plan(len(samples), training, machine, 1)
    _, records = register(samples.images)
    architecture = detectron2.modeling.META_ARCH_REGISTRY.get(TrainedSegmentor.__name__)
    segmentor = architecture(
        model.to(make_accelerator(machine).device), seed, lambda: detectron2.utils.events.get_event_storage().iter
    )
    trainer = _make_trainer(segmentor, make_optimizer(groups, training), training)
    kept = folder / FOLDER / (key or "run")
    kept.mkdir(parents=True, exist_ok=True)
    checkpoints = detectron2.checkpoint.DetectionCheckpointer(segmentor, str(kept), trainer=trainer)
    state = checkpoints.resume_or_load("", resume=True)
    start, last_epoch = int(state.get("done", 0)), dict(state.get("last_epoch", {}))
    batch = training.effective_batch
    order = StepSampler(len(samples), steps, batch=batch, seed=seed, start=start, rank=0, processes=1)
    trainer.reset_data_loader(
        lambda: detectron2.data.build_detection_train_loader(
            _Drawn(records, TrainMapper(samples)),
            mapper=None,
            sampler=_Order(order),
            total_batch_size=batch,
            aspect_ratio_grouping=False,
            num_workers=machine.loader_processes,
        )
    )
    with (
        Meter(title, steps.total, start=start) as meter,
        TrainingLog(folder, start, main=True) as log,
        held_back() as held,
    ):
        hooks = _Hooks(
            segmentor=segmentor,
            optimizer=trainer.optimizer,
            checkpoints=checkpoints,
            steps=steps,
            training=training,
            machine=machine,
            log=log,
            meter=meter,
            held=held,
            last_epoch=last_epoch,
            validate=validate,
        )
        trainer.register_hooks(hooks.made(detectron2.engine.hooks))
        try:
            trainer.train(start, steps.total)
        except FloatingPointError as error:
            raise NonFiniteLossError(
                f"{title}: loss is not finite at step {trainer.iter}; lower the learning rate"
            ) from error
    return {name: value / steps.per_epoch for name, value in last_epoch.items()}


def clear(folder: Path) -> None:
    """Remove the checkpoints of a finished run, once its result is safe."""
    rmtree(folder / FOLDER, ignore_errors=True)


def _make_trainer(segmentor: nn.Module, optimizer: torch.optim.Optimizer, training: IterationTraining) -> Any:
    """``SimpleTrainer``, or ``AMPTrainer`` for half precision; its loader follows."""
    if training.clip_grad is not None:
        parameters, most = list(segmentor.parameters()), training.clip_grad
        optimizer.register_step_pre_hook(lambda *_: (nn.utils.clip_grad_norm_(parameters, most), None)[1])
    engine = load_detectron2().engine
    if training.precision == "fp32":
        return engine.SimpleTrainer(segmentor, None, optimizer)
    scaler = torch.amp.GradScaler("cuda", enabled=training.precision == "fp16")
    precision = torch.float16 if training.precision == "fp16" else torch.bfloat16
    return engine.AMPTrainer(segmentor, None, optimizer, grad_scaler=scaler, precision=precision)


@dataclass(kw_only=True)
class _Hooks:
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


class _Kept:
    """An evaluator beside ``SemSegEvaluator``: a confusion matrix an image, and its prediction for pictures."""

    def __init__(self, classes: int, keep: Keep | None) -> None:
        self.classes, self.keep = classes, keep
        self.cells: list[Cells] = []

    def reset(self) -> None:
        """Before a pass."""
        self.cells = []

    def process(self, inputs: Sequence[Record], outputs: Sequence[Mapping[str, Tensor]]) -> None:
        """One batch."""
        for one, output in zip(inputs, outputs, strict=True):
            predicted = output["sem_seg"].argmax(dim=0).to(torch.uint8)
            if self.keep is not None:
                self.keep(one["index"], predicted)
            matrix = confusion_matrix(one["sem_seg"].to(predicted.device), predicted, self.classes)
            self.cells.append(to_cells(matrix.cpu().numpy()))

    def evaluate(self) -> None:
        """Nothing of its own."""


def score(
    network: nn.Module,
    images: SegmentationSet,
    test: SlidingTest,
    *,
    mean: Tensor,
    patch: int,
    machine: Machine,
    keep: Keep | None = None,
) -> Scored:
    """Confusion matrices by ``inference_on_dataset``, one pass for each way of testing; arguments as of the own engine.

    Every pass is scored by ``SemSegEvaluator`` as well; what the matrices say must be what it says.
    """
    detectron2 = load_detectron2()
    name, records = register(images)
    found: Scored = []
    for one in single_ways(test):
        scorer = Scorer(network, classes=len(images.classes), mean=mean, patch=patch, test=one, images=images)
        loader = detectron2.data.build_detection_test_loader(
            records, mapper=ScoreMapper(images, one), num_workers=machine.loader_processes
        )
        kept = _Kept(len(images.classes), None if found else keep)
        model = detectron2.modeling.META_ARCH_REGISTRY.get(ScoredSegmentor.__name__)(network, scorer).eval()
        theirs = detectron2.evaluation.inference_on_dataset(model, loader, [make_evaluator(name, images), kept])
        ours = float(miou_present(class_sums(kept.cells, len(images.classes)).sum(axis=0)))
        reported = theirs["sem_seg"]["mIoU"] / 100
        assert abs(ours - reported) <= TOLERANCE, f"mIoU {ours} where detectron2 reports {reported}"
        (facets,) = scorer.facets()
        found.append((facets, kept.cells))
    return found


def single_ways(test: SlidingTest) -> list[SlidingTest]:
    """Each way of testing alone, in their order."""
    ways = [replace(test, strides=(stride,), whole=False) for stride in test.strides]
    return ways + [replace(test, strides=(), whole=True)] * test.whole


def make_evaluator(name: str, images: SegmentationSet) -> Any:
    """``SemSegEvaluator`` of a registered set, whose labels are shifted as ours; it leaves boundaries out."""
    index = {str(annotation): place for place, (_, annotation) in enumerate(images.files)}

    def read_labels(file: str, dtype: Any) -> np.ndarray:
        labels: np.ndarray = images.read(index[file])[1].numpy().astype(dtype)
        return labels

    evaluator = load_detectron2().evaluation.SemSegEvaluator(name, distributed=False, sem_seg_loading_fn=read_labels)
    evaluator._compute_boundary_iou = False  # it does so wherever OpenCV is installed, and has no switch
    return evaluator
