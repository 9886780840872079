"""Which of the paper's backbones an architecture is, by its text alone: reports import no timm."""

from __future__ import annotations

import re
from functools import cache

# Width, depth and patch of the paper's ViTs: those of timm's vit_small_patch16_224 and vit_base_patch16_224.
_SHAPES = {
    "vit_small": {"embed_dim": "384", "depth": "12", "patch_size": "16"},
    "vit_base": {"embed_dim": "768", "depth": "12", "patch_size": "16"},
}
FAMILIES = (*_SHAPES, "resnet50")
_VIT = re.compile(r"(?:vit|vit_relpos|deit|beit)_(small|base)_patch16(?:_\d+)?")


@cache
def family(arch: str) -> str:
    """``vit_small``, ``vit_base`` or ``resnet50``; ``other`` for anything of another shape.

    Args:
        arch: A published name such as ``vit_base``, or `cim_bench.spec.Arch` as text:
            ``beit_base_patch16_224@224,init_values=0.1``. timm's tags (``resnet50.a1_in1k``) do not count.
    """
    name, _, rest = arch.partition("@")
    stem = name.partition(".")[0]
    if stem in FAMILIES:
        return stem
    if not (match := _VIT.fullmatch(stem)):
        return "other"
    options = dict(option.split("=", maxsplit=1) for option in rest.split(",")[1:] if "=" in option)
    usual = _SHAPES[f"vit_{match[1]}"]
    shape = {name: options.get(name, size) for name, size in usual.items()}
    return next((found for found, known in _SHAPES.items() if known == shape), "other")


def is_resnet(arch: str) -> bool:
    """True for ResNets and their kin (ResNeXt, Wide ResNet, ...), the suite's only convolutional networks."""
    return "resne" in arch.partition("@")[0]
