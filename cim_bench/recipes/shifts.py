"""The published shifts of ImageNet, one evaluator each, for fine-tuned ImageNet-1k classifiers."""

from __future__ import annotations

from cim_bench.evals.shifts import Shift
from cim_bench.spec import Data


def imagenet_a() -> Shift:
    """ImageNet-A: 7,500 images of 200 classes, with the clean top-1 of the same classes.

    Command: ``cim-bench evaluate CLASSIFIER --evaluators imagenet_a --evaluators.imagenet_a.data.root IMAGENET_A
    --data.root IMAGENET``. Hardware: one GPU, minutes. Expected: 35.9 % for MAE's released ViT-B (its README).
    """
    return Shift(data=Data(name="imagenet-a", root="data/imagenet-a", val_split="."), clean=True)


def imagenet_r() -> Shift:
    """ImageNet-R: 30,000 renditions of 200 classes, with the clean top-1 of the same classes.

    Command: ``cim-bench evaluate CLASSIFIER --evaluators imagenet_r --evaluators.imagenet_r.data.root IMAGENET_R
    --data.root IMAGENET``. Hardware: one GPU, minutes. Expected: 48.3 % for MAE's released ViT-B (its README).
    """
    return Shift(data=Data(name="imagenet-r", root="data/imagenet-r", val_split="."), clean=True)


def imagenet_sketch() -> Shift:
    """ImageNet-Sketch: 50,889 drawings of all 1,000 classes.

    Command: ``cim-bench evaluate CLASSIFIER --evaluators imagenet_sketch --evaluators.imagenet_sketch.data.root
    IMAGENET_SKETCH``. Hardware: one GPU, minutes. Expected: 34.5 % for MAE's released ViT-B (its README).
    """
    return Shift(data=Data(name="imagenet-sketch", root="data/imagenet-sketch", val_split="."))


def imagenet_v2() -> Shift:
    """ImageNetV2 (matched frequency): 10,000 images in folders named by class number.

    Command: ``cim-bench evaluate CLASSIFIER --evaluators imagenet_v2 --evaluators.imagenet_v2.data.root IMAGENET_V2``.
    Hardware: one GPU, minutes. Expected: no figure that was verified.
    """
    return Shift(data=Data(name="imagenet-v2", root="data/imagenet-v2", val_split="."), labels="index")


def imagenet_real() -> Shift:
    """ReaL: ImageNet's validation images with all their labels.

    Command: ``cim-bench evaluate CLASSIFIER --evaluators imagenet_real --evaluators.imagenet_real.data.root IMAGENET``.
    Hardware: one GPU, minutes. Expected: no figure that was verified.
    """
    return Shift(data=Data(name="imagenet-real", root="data/imagenet", val_split="val"), labels="real")
