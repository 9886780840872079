"""The demo: one whole benchmark on real photographs, on two CPU cores, in minutes."""

from __future__ import annotations

from cim_bench.evals.finetune import Finetune
from cim_bench.evals.knn import KNN
from cim_bench.evals.linear_probe import LinearProbe
from cim_bench.pretrain.cim import CIM
from cim_bench.recipe import Arch, Benchmark, Data, Machine, Pretraining, RandomInit, Training

PHOTOS = Data(name="photos", root="photos")
ARCH = Arch(
    name="vit_small_patch16_224",
    image_size=64,
    options={"patch_size": 8, "embed_dim": 192, "depth": 6, "num_heads": 3},
)
PRETEXT = CIM(
    context_size=64,
    exemplar_size=32,
    num_exemplars=4,
    decoder_dim=128,
    decoder_heads=4,
    base_scale=(0.5, 1.0),
)


def demo() -> Benchmark:
    """CIM against random weights on ``photos``, through k-NN, linear probing and fine-tuning.

    Command: ``cim-bench demo``. Hardware: 2 CPU cores, no GPU. Time: see README.
    Expected: the linear column above random by some points, the others not (docs/results/demo.md).
    """
    machine = Machine(workers=1, micro_batch=64, save_every_s=30)
    pretraining = Pretraining(
        pretext=PRETEXT,
        arch=ARCH,
        data=PHOTOS,
        machine=machine,
        training=Training(
            epochs=7,
            warmup_epochs=1,
            effective_batch=64,
            base_lr=4e-3,
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
                    epochs=2,
                    warmup_epochs=0.5,
                    effective_batch=64,
                    base_lr=2e-3,
                    min_lr=1e-6,
                    weight_decay=0.05,
                    layer_decay=0.8,
                ),
            ),
        },
        data=PHOTOS,
        machine=machine,
    )
