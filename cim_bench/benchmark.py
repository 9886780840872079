"""A benchmark: subjects, evaluators and the data they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import MinLen

from cim_bench.common.ranges import NotNegative, Seed, Settings
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.contracts.executor import Executor
from cim_bench.contracts.pretext import Pretext
from cim_bench.engine.optimizers import check_optimizer
from cim_bench.executors.local import LocalExecutor
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine, Training


@dataclass(frozen=True, kw_only=True)
class Pretraining(Settings):
    """Everything that makes a checkpoint."""

    pretext: Pretext
    arch: Arch
    data: Data
    training: Training
    export: Literal["online", "ema"] = "online"
    seed: Seed = 0
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimizer(self.training, "Pretraining.training")
        if self.training.layer_decay is not None:
            raise ValueError(
                f"Pretraining.training.layer_decay is {self.training.layer_decay}, with no effect on a pre-training, "
                "whose layers have one rate; set it to None"
            )


@dataclass(frozen=True, kw_only=True)
class RandomInit(Settings):
    """A subject without pre-training: timm's initialisation, or the one that `pretext` starts from.

    Attributes:
        arch: Its network.
        pretext: Whose initialisation it has; ``None`` for timm's.
        calibrate: Most images of the benchmark's training split from which BatchNorm takes its statistics, without
            labels or gradients; 0 for those of a fresh network, 0 and 1. A frozen pre-trained network has statistics of
            images, so the random one that it is compared with needs them too; one that is fine-tuned learns its own.
    """

    arch: Arch
    pretext: Pretext | None = None
    calibrate: NotNegative = 0


@dataclass(frozen=True, kw_only=True)
class Benchmark(Settings):
    """Subjects × evaluators × data.

    Attributes:
        name: Name of the default output folder.
        subjects: Rows.
        evaluators: Protocols, by the name their jobs carry.
        only: For an evaluator that is not meant for all subjects, their names, or patterns such as ``*ViT-B``.
        data: The image set that evaluators read unless they name their own.
        seed: Seed of every evaluation.
        executor: What runs the jobs, with its settings.
        report: Registry name of the tables to print at the end.
    """

    name: Annotated[str, MinLen(1)]
    subjects: dict[str, Pretraining | FromCheckpoint | RandomInit]
    evaluators: dict[str, Evaluator]
    data: Data
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seed: Seed = 0
    machine: Machine = field(default_factory=Machine)
    executor: Executor = field(default_factory=LocalExecutor)
    report: str = "cim_cvpr2023"
