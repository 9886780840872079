"""What the released image sets hold, and how their splits are called; imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cim_bench.data.classes import imagenet_a_wnids, imagenet_r_wnids, imagenet_wnids

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "validation", "validate")}


# The 15 corruptions by the tar they are released in (zenodo.org/records/2235448), and the four extra ones.
CORRUPTIONS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
EXTRA_CORRUPTIONS = {"extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate")}


class Release(NamedTuple):
    """One split of a released set.

    Attributes:
        images: How many images there are; more than one figure where copies in use differ.
        per_class: Images of every class, ``None`` where classes differ.
        source: The file to get it from.
    """

    images: tuple[int, ...]
    per_class: int | None
    source: str


# By kind and split; "" where there is one split, whatever its name (of ImageNet-C, each severity of each corruption).
RELEASES = {
    ("ImageNet-1k", "train"): Release((1_281_167,), None, "ILSVRC2012_img_train.tar"),
    ("ImageNet-1k", "val"): Release((50_000,), 50, "ILSVRC2012_img_val.tar"),
    ("ImageNet-A", ""): Release((7_500,), None, "imagenet-a.tar"),
    ("ImageNet-R", ""): Release((30_000,), None, "imagenet-r.tar"),
    ("ImageNet-Sketch", ""): Release((50_889, 50_000), None, "ImageNet-Sketch.zip"),
    ("ImageNet-V2", ""): Release((10_000,), 10, "imagenetv2-matched-frequency.tar.gz"),
    ("ImageNet-C", ""): Release((50_000,), 50, "its tar from zenodo.org/records/2235448"),
    ("ADE20K", "train"): Release((20_210,), None, "ADEChallengeData2016.zip"),
    ("ADE20K", "val"): Release((2_000,), None, "ADEChallengeData2016.zip"),
}


def expected_images(name: str) -> tuple[int, ...]:
    """How many images a released set has, by the name that records use, e.g. ``imagenet-a``; empty if none is."""
    return next((r.images for (kind, split), r in RELEASES.items() if kind.lower() == name and not split), ())


# What may follow the name of the set that another one was made from: ``photos-a``, ``photos-c-generated``.
SHIFTS = ("a", "r", "sketch", "v2", "real")
CORRUPTED = ("c-generated", "c")


class Origin(NamedTuple):
    """Where a set comes from.

    Attributes:
        base: The set that it was made from, or collected to stand beside; itself, if its name follows no convention.
        change: What was done to that set: one of `SHIFTS` or `CORRUPTED`, or empty.
    """

    base: str
    change: str


def origin(name: str) -> Origin:
    """Of ``BASE-a``, ``BASE-r``, ``BASE-sketch``, ``BASE-v2``, ``BASE-real``, ``BASE-c`` and ``BASE-c-generated``.

    The released sets are called imagenet-..., and belong to imagenet-1k; generated corruptions are called after the
    very set that is corrupted.
    """
    for change in (*CORRUPTED, *SHIFTS):
        base = name.removesuffix(f"-{change}")
        if base and base != name:
            return Origin("imagenet-1k" if base == "imagenet" and change != "c-generated" else base, change)
    return Origin(name, "")


CLASSES: dict[str, Callable[[], tuple[str, ...]]] = {
    "ImageNet-1k": imagenet_wnids,
    "ImageNet-A": imagenet_a_wnids,
    "ImageNet-R": imagenet_r_wnids,
    "ImageNet-Sketch": imagenet_wnids,
    "ImageNet-V2": lambda: tuple(str(number) for number in range(1000)),
    "ImageNet-C": imagenet_wnids,
}
IMAGENET_C_PIXELS = (224, 224)  # width and height of the released files: they are read without resizing
ADE20K_LABELS = 150  # the largest; 0 is "unlabelled"
FULL_ADE20K = (
    "this is the full ADE20K, with coloured *_seg.png masks of thousands of classes: benchmarks use "
    "ADEChallengeData2016 (images/ and annotations/, 150 classes), get ADEChallengeData2016.zip from "
    "http://data.csail.mit.edu/places/ADEchallenge/"
)
VALPREP = "https://raw.githubusercontent.com/soumith/imagenetloader.torch/master/valprep.sh"
