"""The demo: one whole benchmark on real photographs, on two CPU cores, in minutes."""

from __future__ import annotations

from dataclasses import replace

from cim_bench.benchmark import Benchmark
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.evals.adversarial import Adversarial
from cim_bench.evals.corruptions.protocol import Corruptions
from cim_bench.evals.finetune import Finetune
from cim_bench.evals.segmentation.knn import SegmentationKNN
from cim_bench.evals.shifts import Shift
from cim_bench.recipes.small import Recipe, linear, mae, plain_cim, probes, simmim, training, vit, vit_subjects
from cim_bench.spec import Data, Machine, Training

PHOTOS = Data(name="photos", root="photos")
THINGS = Data(name="photos-things", root="photos-things")  # that pretexts learn from, without labels


def demo() -> Benchmark:
    """CIM, MAE, SimMIM and random weights: k-NN, linear probing, fine-tuning, robustness and segmentation.

    Pretexts learn from ``photos-things``, all else is measured on ``photos`` and sets made of it.

    Command: ``cim-bench demo``. Hardware: 2 CPU cores, no GPU. Time: see README. Expected: docs/results/demo.md.
    """
    machine = Machine(workers=1, micro_batch=64, save_every_s=30, subset_only=True)
    vits = {
        "SimMIM": Recipe(simmim(64), pretraining(epochs=54)),
        # a smaller area, enlarged to 64 pixels, would be so smooth that a blurred copy says nearly all
        "MAE": Recipe(replace(mae(), crop_scale=(0.5, 1.0)), pretraining(epochs=62)),
        "CIM": Recipe(replace(plain_cim(64), ema_momentum=(0.9, 1.0)), pretraining(epochs=22)),
    }
    evaluators: dict[str, Evaluator] = {
        **probes(linear(60, 6, 256, 5.0)),
        # positions of 4 by 4 patches are resampled to 8 by 8
        "segmentation_knn": SegmentationKNN(data=Data(name="photos-seg", root="photos-seg"), size=128),
        "finetune": finetune(),
        "adversarial": Adversarial(crop_pct=1.0, subset=180),
        "corruptions": Corruptions(source="generated", subset=36, crop_pct=1.0),
        "photos_a": Shift(data=Data(name="photos-a", root="photos-a", val_split="."), crop_pct=1.0),
        "photos_r": Shift(data=Data(name="photos-r", root="photos-r", val_split="."), crop_pct=1.0),
        "photos_sketch": Shift(data=Data(name="photos-sketch", root="photos-sketch", val_split="."), crop_pct=1.0),
    }
    return Benchmark(
        name="demo",
        subjects=vit_subjects(machine, vit(64, cells=4, depth=2), vits, THINGS),
        evaluators=evaluators,
        data=PHOTOS,
        machine=machine,
    )


def pretraining(epochs: int) -> Training:
    """Up to a rate of 2e-3; epochs are chosen so that each method has about the same time of one core."""
    return training(epochs, warmup_epochs=epochs / 12, base_lr=8e-3, beta2=0.999)


def finetune() -> Finetune:
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
            layer_decay=0.8,
        ),
    )
