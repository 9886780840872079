"""The demo: one whole benchmark on real photographs, on two CPU cores, in minutes."""

from __future__ import annotations

from cim_bench.benchmark import Benchmark
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.evals.adversarial import Adversarial
from cim_bench.evals.corruptions.protocol import Corruptions
from cim_bench.evals.finetune import Finetune
from cim_bench.evals.shifts import Shift
from cim_bench.recipes.small import ONLY, RESNETS, TUNED, VITS, linear, probes, subjects, training
from cim_bench.spec import Data, Machine, Training

PHOTOS = Data(name="photos", root="photos")


def demo() -> Benchmark:
    """CIM, MAE, SimMIM and random weights on ``photos``: k-NN, linear probing, fine-tuning and robustness.

    Command: ``cim-bench demo``. Hardware: 2 CPU cores, no GPU. Time: see README.
    Expected: CIM above random weights in k-NN and linear probing (docs/results/demo.md).
    """
    machine = Machine(workers=1, micro_batch=64, save_every_s=30, subset_only=True)
    evaluators: dict[str, Evaluator] = {
        **probes(linear(60, 6, 256, 5.0)),
        "finetune": finetune(layer_decay=0.8),
        "finetune_resnet": finetune(layer_decay=None),
        "adversarial": Adversarial(crop_pct=1.0, subset=180),
        "corruptions": Corruptions(source="generated", subset=36, crop_pct=1.0),
        "photos_a": Shift(data=Data(name="photos-a", root="photos-a", val_split="."), crop_pct=1.0),
        "photos_r": Shift(data=Data(name="photos-r", root="photos-r", val_split="."), crop_pct=1.0),
        "photos_sketch": Shift(data=Data(name="photos-sketch", root="photos-sketch", val_split="."), crop_pct=1.0),
    }
    return Benchmark(
        name="demo",
        subjects=subjects(
            machine,
            image_size=64,
            vits=training(epochs=5, warmup_epochs=1),
            resnets=training(epochs=3, warmup_epochs=1),
        ),
        evaluators=evaluators,
        only={
            **ONLY,
            "finetune": VITS,
            "finetune_resnet": RESNETS,
            **dict.fromkeys(("adversarial", "corruptions", "photos_a", "photos_r", "photos_sketch"), TUNED),
        },
        data=PHOTOS,
        machine=machine,
    )


def finetune(layer_decay: float | None) -> Finetune:
    """Two epochs without strong augmentation."""
    return Finetune(
        auto_augment="",
        reprob=0.0,
        mixup=0.0,
        cutmix=0.0,
        crop_scale=(0.5, 1.0),
        crop_pct=1.0,
        drop_path=0.0,
        training=Training(
            epochs=2,
            warmup_epochs=1,
            effective_batch=64,
            base_lr=2e-3,
            min_lr=1e-6,
            weight_decay=0.05,
            layer_decay=layer_decay,
        ),
    )
