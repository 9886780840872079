"""All depths of segmentation on a small set of street photographs, on two CPU cores."""

from __future__ import annotations

from dataclasses import replace

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.evals.segmentation.knn import SegmentationKNN
from cim_bench.evals.segmentation.linear import SegmentationLinear, dinov2_training
from cim_bench.evals.segmentation.upernet import SegmentationUPerNet, mae_training
from cim_bench.spec import OF_BENCHMARK, Arch, Data, FromCheckpoint, Machine, SlidingTest

VIT = Arch(name="vit_small_patch14_dinov2", image_size=224)


def facade() -> Benchmark:
    """A checkpoint and random weights through the segmentation protocols, on a folder in ADE20K's layout.

    Command: ``cim-bench run facade --data.root FOLDER --subjects.Pretrained.path CHECKPOINT``. Made for LabelMeFacade
    (100 training and 150 validation photographs, eight classes); UPerNet has 96 channels and crops of 252 pixels, which
    patches of 14 divide. Hardware: 2 CPU cores. Time: docs/results/segmentation.md. Expected: the
    checkpoint above random weights in every depth.
    """
    return Benchmark(
        name="facade",
        subjects={
            "Scratch": RandomInit(arch=VIT),
            "Pretrained": FromCheckpoint(kind="backbone", published="any ViT or ResNet"),
        },
        evaluators={
            "segmentation_knn": SegmentationKNN(data=OF_BENCHMARK),
            "segmentation_linear": linear(),
            "segmentation_upernet": upernet(),
        },
        data=Data(name="facade", root="data/facade"),
        machine=Machine(workers=1, micro_batch=8, save_every_s=30),
    )


CROP = 252
TEST = SlidingTest(scale=(4 * CROP, CROP), crop=CROP, strides=(2 * CROP // 3,))


def linear() -> SegmentationLinear:
    """DINOv2's head for 1,000 steps, on the tokens of one window of each image, which are made once."""
    schedule = replace(dinov2_training(), iterations=1_000, warmup_iterations=100)
    return SegmentationLinear(data=OF_BENCHMARK, training=schedule, test=TEST, augment="none")


def upernet() -> SegmentationUPerNet:
    """UPerNet of an eighth of the width, for 160 steps of 8 images."""
    schedule = replace(mae_training(), iterations=160, effective_batch=8, lr=3e-4, warmup_iterations=16, validations=2)
    return SegmentationUPerNet(data=OF_BENCHMARK, training=schedule, test=TEST, channels=96)
