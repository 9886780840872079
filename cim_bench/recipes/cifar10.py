"""CIFAR-10 at 32 pixels: the paper's matrix in miniature, for one small GPU or a patient CPU."""

from __future__ import annotations

from dataclasses import replace

from cim_bench.benchmark import Benchmark
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.evals.adversarial import Adversarial
from cim_bench.evals.corruptions.protocol import Corruptions
from cim_bench.evals.finetune import Finetune
from cim_bench.recipes.small import (
    ONLY,
    RESNETS,
    TUNED,
    VITS,
    Recipe,
    cim,
    linear,
    mae,
    plain_cim,
    probes,
    resnet,
    resnet_subjects,
    simmim,
    training,
    vit,
    vit_subjects,
)
from cim_bench.spec import Data, Machine, Training


def cifar10() -> Benchmark:
    """CIM, MAE, SimMIM and random weights on CIFAR-10: k-NN, linear probing, fine-tuning, attacks, corruptions.

    Command: ``cim-bench run cifar10 --data.root CIFAR10``, where CIFAR10 is an ImageFolder with ``train`` and
    ``test``, or ``torch/cifar10``. Hardware: one small GPU, or a CPU and patience. Expected: docs/results/cifar10.md.
    """
    data = Data(name="cifar10", root="torch/cifar10", val_split="test")
    machine = Machine(workers=1, micro_batch=256, save_every_s=60)
    budget = training(epochs=4, warmup_epochs=0.1)
    vits = {
        "SimMIM": Recipe(simmim(32), budget),
        "MAE": Recipe(mae(), budget),
        "CIM": Recipe(plain_cim(32), budget),
    }
    resnets = {"SimMIM": Recipe(simmim(32), budget), "CIM": Recipe(cim(32), budget)}
    tuning = Finetune(
        auto_augment="",
        mixup=0.0,
        cutmix=0.0,
        crop_scale=(0.5, 1.0),
        crop_pct=1.0,
        drop_path=0.0,
        training=Training(epochs=10, warmup_epochs=1, effective_batch=256, base_lr=5e-4, min_lr=1e-6, layer_decay=0.8),
    )
    evaluators: dict[str, Evaluator] = {
        **probes(linear(30, 3, 1024, 1.0)),
        **probes(linear(30, 3, 1024, 1.0), resnet=True),
        "finetune": tuning,
        "finetune_resnet": replace(tuning, training=replace(tuning.training, layer_decay=None)),
        "adversarial": Adversarial(crop_pct=1.0),
        "corruptions": Corruptions(source="generated", subset=500, crop_pct=1.0),
    }
    return Benchmark(
        name="cifar10",
        subjects={**vit_subjects(machine, vit(32), vits), **resnet_subjects(machine, resnet(32), resnets)},
        evaluators=evaluators,
        only={
            **ONLY,
            "finetune": VITS,
            "finetune_resnet": RESNETS,
            **dict.fromkeys(("adversarial", "corruptions"), TUNED),
        },
        data=data,
        machine=machine,
    )
