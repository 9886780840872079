"""All depths of segmentation on a small set of street photographs, on two CPU cores."""

from __future__ import annotations

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.evals.segmentation.upernet import SegmentationUPerNet
from cim_bench.spec import OF_BENCHMARK, Arch, Data, FromCheckpoint, IterationTraining, Machine, SlidingTest

VIT = Arch(name="vit_small_patch14_dinov2", image_size=224)


def facade() -> Benchmark:
    """A checkpoint and random weights through the segmentation protocols, on a folder in ADE20K's layout.

    Command: ``cim-bench run facade --data.root FOLDER --subjects.Pretrained.path CHECKPOINT``. Made for LabelMeFacade
    (100 training and 150 validation photographs, eight classes); UPerNet has 96 channels and crops of 252 pixels, which
    patches of 14 divide. Hardware: 2 CPU cores. Time: see docs/results/segmentation.md.
    """
    return Benchmark(
        name="facade",
        subjects={"Scratch": RandomInit(arch=VIT), "Pretrained": FromCheckpoint(kind="backbone")},
        evaluators={"segmentation_upernet": upernet()},
        data=Data(name="facade", root="data/facade"),
        machine=Machine(workers=1, micro_batch=8, save_every_s=30),
    )


def upernet(crop: int = 252) -> SegmentationUPerNet:
    """UPerNet of an eighth of the width, for 160 steps of 8 images."""
    return SegmentationUPerNet(
        data=OF_BENCHMARK,
        training=IterationTraining(
            iterations=160,
            effective_batch=8,
            lr=3e-4,
            weight_decay=0.05,
            layer_decay=0.65,
            warmup_iterations=16,
            validations=2,
        ),
        test=SlidingTest(scale=(2 * crop, crop), crop=crop, strides=(2 * crop // 3,)),
        channels=96,
    )
