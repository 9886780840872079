"""Fine-tuning with UPerNet on ADE20K as published, one evaluator each."""

from __future__ import annotations

from dataclasses import replace

from cim_bench.evals.segmentation.upernet import SegmentationUPerNet, mae_training
from cim_bench.spec import SlidingTest

# Validation mIoU every 16,000 steps (implus/mae_segmentation @772c0c1, its committed log).
MAE_CURVE = (38.65, 43.97, 45.96, 45.28, 46.01, 46.81, 46.85, 47.69, 47.68, 48.15)


def segmentation_mae() -> SegmentationUPerNet:
    """UPerNet by implus/mae_segmentation: relative positions and layer scale are added to MAE's ViT.

    Command: ``cim-bench evaluate CHECKPOINT --evaluators segmentation_mae
    --evaluators.segmentation_mae.data.root ADEChallengeData2016``. Hardware: 26.5 h on 8 RTX 3090 (its log).
    Expected: 48.15 % for MAE's ViT-B (its log), 48.1 % in the paper.
    """
    return SegmentationUPerNet(relative_bias=True, layer_scale=1.0, published_curve=MAE_CURVE)


def segmentation_mae_mmseg() -> SegmentationUPerNet:
    """The same network with mmsegmentation's configuration of MAE: windows 256 pixels apart.

    Command: ``cim-bench evaluate CHECKPOINT --evaluators segmentation_mae_mmseg
    --evaluators.segmentation_mae_mmseg.data.root ADEChallengeData2016``. Hardware: 8 GPUs in its configuration.
    Expected: 48.13 % for MAE's ViT-B (mmsegmentation, configs/mae).
    """
    return replace(segmentation_mae(), test=SlidingTest(strides=(256,)))


def segmentation_beit() -> SegmentationUPerNet:
    """UPerNet by BEiT's configuration of pre-trained weights: rate 7e-4; positions are BEiT's own relative ones.

    Command: ``cim-bench evaluate CHECKPOINT --evaluators segmentation_beit
    --evaluators.segmentation_beit.data.root ADEChallengeData2016``. Hardware: 8 GPUs in its configuration.
    Expected: 45.6 % for BEiT's pre-training alone (its paper, as microsoft/unilm issue 391 quotes it).
    """
    return SegmentationUPerNet(training=replace(mae_training(), lr=7e-4))


def segmentation_cim() -> SegmentationUPerNet:
    """MAE's recipe without what it adds to the network; CIM published no segmentation code, so theirs is not known.

    Command: ``cim-bench evaluate CHECKPOINT --evaluators segmentation_cim
    --evaluators.segmentation_cim.data.root ADEChallengeData2016``. Hardware and time: not measured by us.
    Expected: 48.1 % for CIM's ViT-B (reported, by a recipe that is not published).
    """
    return SegmentationUPerNet()
