"""Recipes: Python functions that return one complete frozen dataclass; and the contracts of plug-ins.

Nothing here imports torch, so that listing and planning stay instant. `cim_bench.overrides` reads them from files and
the command line.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from cim_bench import registry
from cim_bench.record import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from cim_bench.backbone import Backbone
    from cim_bench.context import Context
    from cim_bench.inference import Batch, Transform
    from cim_bench.passes import Part
    from cim_bench.pretext import PretextInputs, PretextModel

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Arch:
    """A timm architecture: its name, input size and any further argument of ``timm.create_model``."""

    name: str = "vit_base_patch16_224"
    image_size: int = 224
    options: Mapping[str, int | float | str | tuple[int, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = {k: "x".join(map(str, v)) if isinstance(v, tuple) else v for k, v in sorted(self.options.items())}
        options = "".join(f",{key}={value}" for key, value in shown.items())
        return f"{self.name}@{self.image_size}{options}"


@dataclass(frozen=True, kw_only=True)
class Data:
    """A labelled image set.

    Attributes:
        name: What tables call it.
        root: A folder (ImageFolder, tar files), or ``wds/FOLDER``, ``hfds/NAME``, ``torch/NAME`` (see
            `cim_bench.data.images`); ``photos`` is the demo's own set.
        train_split: Split that training and k-NN banks read.
        val_split: Split that is scored.
        cache: Download folder of ``torch/`` and ``hfds/`` sets.
        bad_files: A text file with one image id a line to leave out; it becomes part of the fingerprint.
    """

    name: str = "imagenet-1k"
    root: str = "data/imagenet"
    train_split: str = "train"
    val_split: str = "val"
    cache: str | None = None
    bad_files: str | None = None


OF_BENCHMARK = Data(name="", root="")  # of a pre-training: the set of the benchmark that it is a subject of


@dataclass(frozen=True, kw_only=True)
class Training:
    """One optimisation schedule. Every value can move a number, so all of it belongs to the job's key.

    Attributes:
        epochs: Passes over the data.
        warmup_epochs: Linear warm-up from 0, set per step.
        warmup_prefix: Whether the half-cosine begins after the warm-up, at its top (MAE, CIM, BEiT), or spans all
            epochs, of which warm-up replaces the first (timm's scheduler by default: SimMIM, DeiT, RSB).
        effective_batch: Images per optimiser step over all devices; accumulation is derived from it.
        base_lr: Learning rate per `lr_batch` images of `effective_batch`.
        milestones: Epochs at which the rate falls tenfold, in place of the half-cosine (SimMIM pre-training).
        lr_batch: 256 for MAE and CIM recipes, 512 for SimMIM's.
        min_lr: Value at the end of the half-cosine.
        optimizer: Any name of ``timm.optim``.
        betas: Of Adam-like optimisers.
        momentum: Of SGD-like optimisers.
        weight_decay: Not applied to biases, norms, position and class tokens.
        layer_decay: Factor of the learning rate per layer below the head; ``None`` for one rate.
        clip_grad: Largest gradient norm, in every precision; ``None`` for no clipping.
        precision: Of forward and backward; weights are always fp32.
        repeats: Times that an epoch shows each of its images, under different augmentations; an epoch stays as
            long, and shows fewer images (repeated augmentation, 3 in RSB A2; timm, ``RepeatAugSampler``).
    """

    epochs: int
    effective_batch: int
    base_lr: float
    warmup_epochs: float = 0.0
    warmup_prefix: bool = True
    milestones: tuple[float, ...] = ()
    lr_batch: int = 256
    min_lr: float = 0.0
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    weight_decay: float = 0.05
    layer_decay: float | None = None
    clip_grad: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How the work is fitted to this machine; nothing here belongs to a job's key.

    All of it leaves numbers as they are, to rounding, but for `micro_batch` where a pass is a unit of the method:
    statistics of BatchNorm, and what mixup, cutmix and drop path draw. Records name this limit.

    Attributes:
        device: ``auto`` takes the accelerator if there is one; ``cpu`` never does.
        workers: Most loader processes per device; never more than there are cores.
        micro_batch: Most images per device in one pass; halved on out-of-memory.
        compile: Run training through ``torch.compile``.
        save_every_s: Seconds between resume points.
        log_every: Steps between two lines of the training log.
        subset_only: Stop evaluations that know a stratified subset after it; the same command without this
            completes them, and their rows upgrade.
    """

    device: Literal["auto", "cpu"] = "auto"
    workers: int = 8
    micro_batch: int = 256
    compile: bool = False
    save_every_s: float = 300.0
    log_every: int = 10
    subset_only: bool = False

    @property
    def loader_processes(self) -> int:
        """`workers`, or the cores of this machine if these are fewer."""
        return min(self.workers, os.cpu_count() or 1)


class Pretext:
    """Contract of a self-supervised method; subclasses are frozen keyword-only dataclasses of its settings.

    Attributes:
        method: Its name in tables.
        version: Bumped whenever weights can move.
        computing: Settings that say where something is computed and not what; no table needs to mention them.
    """

    method: ClassVar[str]
    version: ClassVar[int]
    computing: ClassVar[tuple[str, ...]] = ()

    def build(self, arch: Arch) -> PretextModel:
        """A freshly initialised model (from torch's global generator)."""
        raise NotImplementedError

    def inputs(self, arch: Arch) -> PretextInputs:
        """What a loader worker does to one decoded image."""
        raise NotImplementedError


class Evaluator:
    """Contract of a protocol; subclasses are frozen keyword-only dataclasses whose fields are its knobs.

    Attributes:
        version: Bumped whenever numbers can move.
        needs: What `run` is given; a ``classifier`` is the checkpoint that fine-tuning saved.
    """

    version: ClassVar[int]
    needs: ClassVar[Literal["backbone", "classifier"]]

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """Measure `model`; raw values with exact counts."""
        raise NotImplementedError

    def reads(self, data: Data) -> tuple[tuple[Data, str], ...]:
        """Sets and splits that the numbers rest on, given the benchmark's data; they enter the job's key."""
        return ((data, data.train_split), (data, data.val_split))


class SetEvaluator(Evaluator):
    """Contract of a protocol that only looks at a model's answers on image sets.

    The runner makes one pass over each part for all subjects, decodes each image once, and keeps every
    finished part, so that a killed run goes on from there (`cim_bench.passes`).
    """

    def parts(self, ctx: Context) -> Sequence[Part]:
        """The passes, in order; those of the stratified subset first, where there is one."""
        raise NotImplementedError

    def check(self, model: Backbone, ctx: Context) -> None:
        """Refuse a model that the sets do not fit, before anything is decoded.

        Raises:
            ValueError: Saying what does not fit.
        """

    def transform(self, model: Backbone) -> Transform:
        """From a decoded image to what `model` takes; equal transforms are applied once for all models."""
        raise NotImplementedError

    def answers(
        self, part: Part, models: Mapping[str, Backbone], pixels: Tensor, batch: Batch
    ) -> Iterator[tuple[str, str, Tensor]]:
        """Model name, variant and predicted labels (B,) for one batch.

        Args:
            part: What is being passed over.
            models: Those that share a transform, by name.
            pixels: (B, 3, H, W) uint8, after that transform.
            batch: Labels and places of the images.
        """
        raise NotImplementedError

    def measure(self, tally: Mapping[str, tuple[int, int]], ctx: Context) -> Iterator[Measurement]:
        """Measurements from correct answers and number of images, by variant."""
        raise NotImplementedError

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """Measure one model; the runner calls `cim_bench.passes` for all models at once."""
        passes = registry.load("cim_bench.passes:passes")
        for _stage in passes(self, {"": model}, {"": ctx}):
            pass
        yield from registry.load("cim_bench.passes:measurements")(self, ctx)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Everything that makes a checkpoint."""

    pretext: Pretext
    arch: Arch
    data: Data
    training: Training
    export: Literal["online", "ema"] = "online"
    seed: int = 0
    machine: Machine = field(default_factory=Machine)


@dataclass(frozen=True, kw_only=True)
class FromCheckpoint:
    """A subject whose checkpoint exists already.

    Attributes:
        path: A checkpoint folder of ours, a public file (``.pth``, ``.safetensors``), or ``timm:NAME``. Empty: nobody
            gave one; its row shows the published figures and dashes.
        kind: What it must be: a pre-trained ``backbone`` or a fine-tuned ``classifier``; empty for either.
        method: What it must be, e.g. ``MAE``; a file of another method is refused. Names the method where the
            file does not tell (timm and torchvision state dicts). Empty: whatever the file is.
        arch: Architecture it must have, e.g. ``vit_small_patch16_224``; needed where shapes do not tell it.
        image_size: Input size; positions are resampled to it. ``None``: the checkpoint's own.
        epochs: Pre-training epochs, where the file does not tell.
        pretrain_data: Image set of the pre-training, e.g. ``IN-22K``, which no file tells.
        published: Where the weights can be had, for ``--plan``.
        allow_pickle: Load a file that is more than tensors. **It can run any code**: only for files you trust.
    """

    path: str = ""
    kind: Literal["", "backbone", "classifier"] = ""
    method: str = ""
    arch: str = ""
    image_size: int | None = None
    epochs: float | None = None
    pretrain_data: str = ""
    published: str = ""
    allow_pickle: bool = False


@dataclass(frozen=True, kw_only=True)
class RandomInit:
    """A subject without pre-training: timm's initialisation, or the one that `pretext` starts from."""

    arch: Arch
    pretext: Pretext | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Subjects × evaluators × data.

    Attributes:
        name: Name of the default output folder.
        subjects: Rows.
        evaluators: Protocols, by the name their jobs carry.
        only: For an evaluator that is not meant for all subjects, their names, or patterns such as ``*ViT-B``.
        data: The image set that evaluators read unless they name their own.
        seed: Seed of every evaluation.
        executor: Registry name of what runs the jobs.
        report: Registry name of the tables to print at the end.
    """

    name: str
    subjects: dict[str, Pretraining | FromCheckpoint | RandomInit]
    evaluators: dict[str, Evaluator]
    data: Data
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0
    machine: Machine = field(default_factory=Machine)
    executor: str = "local"
    report: str = "cim_cvpr2023"


def settings(value: object) -> Any:
    """A dataclass as JSON-serialisable values; plug-ins keep their class name, so that two never look alike."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {f.name: settings(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **named} if isinstance(value, Pretext | Evaluator) else named
    if isinstance(value, Mapping):
        return {str(key): settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [settings(item) for item in value]
    return value
