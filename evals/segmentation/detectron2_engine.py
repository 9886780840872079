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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cim_bench.common.interrupts import held_back
from cim_bench.common.progress import Meter
from cim_bench.data.segmentation import IGNORED, SegmentationSet
from cim_bench.engine.devices import make_accelerator
from cim_bench.engine.fit import NonFiniteLossError
from cim_bench.engine.log import TrainingLog
from cim_bench.engine.optimizers import make_optimizer
from cim_bench.engine.schedule import Steps, StepSampler
from cim_bench.evals.segmentation.detectron2_hooks import Hooks
from cim_bench.evals.segmentation.detectron2_parts import (
    CatalogRecord,
    Drawn,
    Kept,
    Order,
    ScoredSegmentor,
    ScoreMapper,
    TrainedSegmentor,
    TrainMapper,
)
from cim_bench.evals.segmentation.samples import SegmentationSamples
from cim_bench.evals.segmentation.scoring import Keep, Scored, Scorer
from cim_bench.records.confusions import class_sums, miou_present
from cim_bench.spec import IterationTraining, Machine, SlidingTest

TOLERANCE = 1e-6  # between detectron2's mIoU and ours of the same predictions, as fractions
FOLDER = "detectron2"  # of checkpoints, in the job's folder
_PARTS = ("checkpoint", "data", "engine", "evaluation", "modeling", "utils.events")


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


def register(images: SegmentationSet) -> tuple[str, list[CatalogRecord]]:
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
            Drawn(records, TrainMapper(samples)),
            mapper=None,
            sampler=Order(order),
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
        hooks = Hooks(
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
        kept = Kept(len(images.classes), None if found else keep)
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
