"""The published shifts of ImageNet, one evaluator each: ``cim-bench evaluate CHECKPOINT --evaluators imagenet_a``.

Roots are set by dotted name, e.g. ``--evaluators.imagenet_a.data.root IMAGENET_A``.
"""

from __future__ import annotations

from cim_bench.evals.shifts import Shift
from cim_bench.recipe import Data


def imagenet_a() -> Shift:
    """ImageNet-A: 7,500 images of 200 classes, with the clean top-1 of the same classes."""
    return Shift(data=Data(name="imagenet-a", root="data/imagenet-a", val_split="."), clean=True)


def imagenet_r() -> Shift:
    """ImageNet-R: 30,000 renditions of 200 classes, with the clean top-1 of the same classes."""
    return Shift(data=Data(name="imagenet-r", root="data/imagenet-r", val_split="."), clean=True)


def imagenet_sketch() -> Shift:
    """ImageNet-Sketch: 50,889 drawings of all 1,000 classes."""
    return Shift(data=Data(name="imagenet-sketch", root="data/imagenet-sketch", val_split="."))


def imagenet_v2() -> Shift:
    """ImageNetV2 (matched frequency): 10,000 images in folders named by class number."""
    return Shift(data=Data(name="imagenet-v2", root="data/imagenet-v2", val_split="."), labels="index")


def imagenet_real() -> Shift:
    """ReaL: ImageNet's validation images with all their labels."""
    return Shift(data=Data(name="imagenet-real", root="data/imagenet", val_split="val"), labels="real")
