"""What a user writes down: architecture, data, training, machine, given checkpoints. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from cim_bench.common.cores import own_cores
from cim_bench.common.ranges import Distinct, NotNegative, Pixels, Positive, Rate, Settings, fit

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Option = bool | int | float | str | tuple[int | tuple[int, ...], ...]
# Ranges of options of ViTs, where they are single numbers; timm would make networks of others, which mean nothing.
OPTIONS: Mapping[str, Any] = {
    "depth": Positive,
    "embed_dim": Positive,
    "num_heads": Positive,
    "patch_size": Pixels,
    "mlp_ratio": Annotated[float, Gt(0)],
    "norm_eps": Annotated[float, Interval(gt=0, lt=1)],  # of every LayerNorm; an option of ours, not of timm's
    "drop_rate": Rate,
    "drop_path_rate": Rate,
}


@dataclass(frozen=True, kw_only=True)
class Arch(Settings):
    """A timm architecture: its name, input size and any further argument of ``timm.create_model``.

    One option is not timm's: ``norm_eps``, the eps of all LayerNorms, which timm takes inside of a Python object alone.
    """

    name: Annotated[str, MinLen(1)] = "vit_base_patch16_224"
    image_size: Pixels = 224
    options: Mapping[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = {name: value for name, value in self.options.items() if not isinstance(value, tuple)}
        for name in OPTIONS.keys() & numbers.keys():
            fit(f"Arch.options.{name}", numbers[name], OPTIONS[name])
        width, heads, patch = (numbers.get(name) for name in ("embed_dim", "num_heads", "patch_size"))
        if isinstance(width, int) and isinstance(heads, int) and width % heads:
            raise ValueError(
                f"Arch.options.embed_dim {width} does not divide by num_heads {heads}; choose a multiple of it"
            )
        if isinstance(patch, int) and self.image_size % patch:
            raise ValueError(
                f"Arch.image_size {self.image_size} does not divide by options.patch_size {patch}; choose a multiple"
            )

    def __str__(self) -> str:
        shown = {k: "x".join(map(str, v)) if isinstance(v, tuple) else v for k, v in sorted(self.options.items())}
        options = "".join(f",{key}={value}" for key, value in shown.items())
        return f"{self.name}@{self.image_size}{options}"


@dataclass(frozen=True, kw_only=True)
class Data(Settings):
    """A labelled image set.

    Attributes:
        name: What tables call it.
        root: A folder (ImageFolder, tar files), or ``wds/FOLDER``, ``hfds/NAME``, ``torch/NAME`` (see
            `cim_bench.data.images`); ``photos`` is the demo's own set.
        train_split: Split that training and k-NN banks read.
        val_split: Split that is scored.
        cache: Download folder of ``torch/`` and ``hfds/`` sets.
        bad_files: A text file with one image id a line to leave out; it becomes part of the fingerprint.
        class_list: Of a segmentation set: the file of its class names, where its root holds none
            (`cim_bench.data.segmentation`).
    """

    name: str = "imagenet-1k"
    root: str = "data/imagenet"
    train_split: str = "train"
    val_split: str = "val"
    cache: str | None = None
    bad_files: str | None = None
    class_list: str | None = None


OF_BENCHMARK = Data(name="", root="")  # of a pre-training or an evaluator: the set of its benchmark


def chosen_data(data: Data, benchmark: Data) -> Data:
    """`data`, or that of the benchmark where it is `OF_BENCHMARK`."""
    return benchmark if data == OF_BENCHMARK else data


@dataclass(frozen=True, kw_only=True)
class Optimisation(Settings):
    """What every training says of its optimiser steps. Every value can move a number, so all of it is in the job's key.

    Attributes:
        effective_batch: Images per optimiser step over all devices; accumulation is derived from it.
        optimizer: Any name of ``timm.optim``.
        betas: Of Adam-like optimisers.
        momentum: Of SGD-like optimisers.
        weight_decay: Not applied to biases, norms, position and class tokens, unless a protocol says otherwise.
        layer_decay: Factor of the learning rate per layer below the head; ``None`` for one rate.
        clip_grad: Largest gradient norm, in every precision; ``None`` for no clipping.
        precision: Of forward and backward; weights are always fp32.
    """

    effective_batch: Positive
    optimizer: Annotated[str, MinLen(1)] = "adamw"
    betas: tuple[Rate, Rate] = (0.9, 0.999)
    momentum: Rate = 0.9
    weight_decay: Annotated[float, Interval(ge=0, le=10)] = 0.05
    layer_decay: Annotated[float, Interval(gt=0, le=1)] | None = None
    clip_grad: Annotated[float, Gt(0)] | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


@dataclass(frozen=True, kw_only=True)
class Training(Optimisation):
    """A training that is counted in epochs.

    Attributes:
        epochs: Passes over the data.
        warmup_epochs: Linear warm-up from 0, set per step.
        warmup_prefix: Whether the half-cosine begins after the warm-up, at its top (MAE, CIM, BEiT), or spans all
            epochs, of which warm-up replaces the first (timm's scheduler by default: SimMIM, DeiT, RSB).
        base_lr: Learning rate per `lr_batch` images of `effective_batch`.
        milestones: Epochs at which the rate falls tenfold, in place of the half-cosine (SimMIM pre-training).
        lr_batch: 256 for MAE and CIM recipes, 512 for SimMIM's.
        min_lr: Value at the end of the half-cosine.
        repeats: Times that an epoch shows each of its images, under different augmentations; an epoch stays as
            long, and shows fewer images (repeated augmentation, 3 in RSB A2; timm, ``RepeatAugSampler``).
    """

    epochs: Positive
    base_lr: Annotated[float, Interval(gt=0, le=1000)]
    warmup_epochs: Annotated[float, Ge(0)] = 0.0
    warmup_prefix: bool = True
    milestones: tuple[Annotated[float, Gt(0)], ...] = ()
    lr_batch: Positive = 256
    min_lr: Annotated[float, Ge(0)] = 0.0
    repeats: Annotated[int, Interval(ge=1, le=16)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        late = any(milestone >= self.epochs for milestone in self.milestones)
        for wrong, name, reason in (
            (self.warmup_epochs > self.epochs, "warmup_epochs", f"beyond Training.epochs {self.epochs}"),
            (late, "milestones", f"not all before the end, Training.epochs {self.epochs}"),
            (self.min_lr > self.peak_lr, "min_lr", f"above the highest rate, {self.peak_lr:.3g}"),
        ):
            if wrong:
                raise ValueError(f"Training.{name} is {getattr(self, name)}, {reason}; lower it")

    @property
    def peak_lr(self) -> float:
        """The highest learning rate of the schedule."""
        return self.base_lr * self.effective_batch / self.lr_batch


@dataclass(frozen=True, kw_only=True)
class IterationTraining(Optimisation):
    """A training that is counted in optimiser steps, whatever the size of the data set, as segmentation is.

    Attributes:
        iterations: Optimiser steps.
        lr: Learning rate at the top, of `effective_batch` images as they are.
        power: Of the polynomial by which the rate falls to 0.
        warmup_iterations: Steps over which a linear factor rises to 1.
        warmup_ratio: That factor at the first step.
        validations: Times that a protocol which draws a curve scores the validation split, the last at the end.
    """

    iterations: Positive
    lr: Annotated[float, Interval(gt=0, le=1000)]
    power: Annotated[float, Interval(gt=0, le=10)] = 1.0
    warmup_iterations: NotNegative = 0
    warmup_ratio: Annotated[float, Interval(gt=0, le=1)] = 1e-6
    validations: Positive = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_iterations > self.iterations:
            raise ValueError(
                f"IterationTraining.warmup_iterations is {self.warmup_iterations}, beyond "
                f"IterationTraining.iterations {self.iterations}; lower it"
            )

    @property
    def peak_lr(self) -> float:
        """The highest learning rate of the schedule."""
        return self.lr


AnyTraining = Training | IterationTraining


@dataclass(frozen=True, kw_only=True)
class Machine(Settings):
    """How the work is fitted to this machine; nothing here belongs to a job's key.

    All of it leaves numbers as they are, to rounding, but for `micro_batch` where a pass is a unit of the method:
    statistics of BatchNorm in networks that train, and what mixup, cutmix, drop path and AutoAttack draw. Records name
    this limit.

    Attributes:
        device: ``auto`` takes the accelerator if there is one; ``cpu`` never does.
        workers: Most loader processes per device; never more than there are cores.
        processes: Processes that compute one job together, each on a device of its own; an executor starts them.
        memory_gb: Main memory that one job of this machine may need, in GB; executors start no more jobs side by side
            than fit.
        micro_batch: Most images per device in one pass; halved on out-of-memory.
        compile: Run training through ``torch.compile``.
        save_every_s: Seconds between resume points.
        log_every: Steps between two lines of the training log.
        subset_only: Stop evaluations that know a stratified subset after it; the same command without this
            completes them, and their rows upgrade.
    """

    device: Literal["auto", "cpu"] = "auto"
    workers: NotNegative = 8
    processes: Positive = 1
    memory_gb: Annotated[float, Gt(0)] = 3.0
    micro_batch: Positive = 256
    compile: bool = False
    save_every_s: Annotated[float, Ge(0)] = 300.0
    log_every: Positive = 10
    subset_only: bool = False

    @property
    def loader_processes(self) -> int:
        """`workers`, or the cores that this process may use if these are fewer."""
        return min(self.workers, own_cores())


@dataclass(frozen=True, kw_only=True)
class SlidingTest(Settings):
    """How a segmentation network is tested on images larger than its input; each way is a measurement of one pass.

    Attributes:
        scale: Longest and shortest side that bound the resized image, in pixels; its shape is kept.
        crop: Side of a window in pixels.
        strides: Steps between windows; logits are averaged where windows overlap.
        whole: Score the network's answer to the whole resized image, too.
        antialias: Whether shrinking filters; mmseg's (OpenCV's bilinear) does not.
    """

    scale: tuple[Pixels, Pixels] = (2048, 512)
    crop: Pixels = 512
    strides: Annotated[tuple[Pixels, ...], Distinct()] = (341,)
    whole: bool = False
    antialias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if wide := [stride for stride in self.strides if stride > self.crop]:
            raise ValueError(
                f"SlidingTest.strides has {wide[0]}, more than SlidingTest.crop {self.crop}: pixels between windows "
                "would have no answer; lower it"
            )
        if not self.strides and not self.whole:
            raise ValueError("SlidingTest.strides is empty and whole is False: nothing would be scored; set either")


@dataclass(frozen=True, kw_only=True)
class FromCheckpoint(Settings):
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
        format: Public format that it must be, by name, or a .py file with a `Format` of your own, which is executed.
            Empty: recognised from its keys and values.
        normalisation: Input normalisation, where the file does not tell it: mean and std of ``imagenet``, of
            ``inception`` (0.5), of ``clip`` or of ``sat493m``. One that the file contradicts is refused.
        drop_head: Take the backbone of a fine-tuned classifier, as rows of supervised training do.
    """

    path: str = ""
    kind: Literal["", "backbone", "classifier"] = ""
    method: str = ""
    arch: str = ""
    image_size: Pixels | None = None
    epochs: Annotated[float, Ge(0)] | None = None
    pretrain_data: str = ""
    published: str = ""
    allow_pickle: bool = False
    format: str = ""
    normalisation: Literal["", "imagenet", "inception", "clip", "sat493m"] = ""
    drop_head: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop_head and self.kind == "classifier":
            raise ValueError(
                "FromCheckpoint.drop_head is True and kind is 'classifier', of which no head would be left; set either"
            )


class PlugIn(Settings):
    """Marks contracts of what plugs in: their settings carry the class's name, so that two never look alike."""


def settings(value: object) -> Any:
    """A dataclass as JSON-serialisable values, a plug-in with its class's name as ``type``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {f.name: settings(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **named} if isinstance(value, PlugIn) else named
    if isinstance(value, Mapping):
        return {str(key): settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [settings(item) for item in value]
    return value


def difference(values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings that differ from their defaults, by dotted name."""
    changed: dict[str, Any] = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            changed |= difference(value, default, f"{prefix}{name}.")
        elif value != default:
            changed[f"{prefix}{name}"] = value
    return changed
