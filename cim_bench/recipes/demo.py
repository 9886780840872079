"""The demo: one whole benchmark on real photographs, on two CPU cores, in minutes."""

from __future__ import annotations

from cim_bench.evals.adversarial import Adversarial
from cim_bench.evals.corruptions import Corruptions
from cim_bench.evals.finetune import Finetune
from cim_bench.evals.knn import KNN
from cim_bench.evals.linear_probe import LinearProbe
from cim_bench.evals.shifts import Shift
from cim_bench.pretrain.cim import CIM
from cim_bench.recipe import Arch, Benchmark, Data, Machine, Pretraining, RandomInit, Training

PHOTOS = Data(name="photos", root="photos")
ARCH = Arch(
    name="vit_small_patch16_224",
    image_size=64,
    options={"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4},
)
# Upright exemplars in their own colours: with the published changes a training this short learns only where
# exemplars tend to lie (docs/results/demo.md).
PRETEXT = CIM(
    context_size=64,
    exemplar_size=32,
    num_exemplars=4,
    max_degrees=0,
    photometric=False,
    decoder_dim=128,
    decoder_heads=4,
)


def demo() -> Benchmark:
    """CIM against random weights on ``photos``: k-NN, linear probing, fine-tuning and robustness.

    Command: ``cim-bench demo``. Hardware: 2 CPU cores, no GPU. Time: see README.
    Expected: CIM above random by some ten points in k-NN and linear probing (docs/results/demo.md).
    """
    machine = Machine(workers=1, micro_batch=64, save_every_s=30, subset_only=True)
    pretraining = Pretraining(
        pretext=PRETEXT,
        arch=ARCH,
        data=PHOTOS,
        machine=machine,
        training=Training(
            epochs=9,
            warmup_epochs=2,
            effective_batch=64,
            base_lr=2e-3,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            clip_grad=1.0,
        ),
    )
    return Benchmark(
        name="demo",
        subjects={"CIM": pretraining, "random": RandomInit(arch=ARCH, pretext=PRETEXT)},
        evaluators={
            "knn": KNN(feature="mean_patch", crop_pct=1.0),
            "linear_probe": LinearProbe(
                feature="mean_patch",
                augment="none",
                crop_pct=1.0,
                training=Training(
                    epochs=90, warmup_epochs=10, effective_batch=256, base_lr=5.0, optimizer="lars", weight_decay=0.0
                ),
            ),
            "finetune": Finetune(
                auto_augment="",
                reprob=0.0,
                mixup=0.0,
                cutmix=0.0,
                crop_scale=(0.5, 1.0),
                crop_pct=1.0,
                drop_path=0.0,
                training=Training(
                    epochs=4,
                    warmup_epochs=1,
                    effective_batch=64,
                    base_lr=2e-3,
                    min_lr=1e-6,
                    weight_decay=0.05,
                    layer_decay=0.8,
                ),
            ),
            "adversarial": Adversarial(crop_pct=1.0),
            "corruptions": Corruptions(source="generated", subset=90, crop_pct=1.0),
            "photos_a": Shift(data=Data(name="photos-a", root="photos-a", val_split="."), crop_pct=1.0),
            "photos_r": Shift(data=Data(name="photos-r", root="photos-r", val_split="."), crop_pct=1.0),
            "photos_sketch": Shift(data=Data(name="photos-sketch", root="photos-sketch", val_split="."), crop_pct=1.0),
        },
        data=PHOTOS,
        machine=machine,
    )
