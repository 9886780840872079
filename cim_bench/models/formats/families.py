"""Families of timm's networks, by the names of their weights: which keys an encoder of each may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Family = Literal["vit", "dinov2", "beit", "eva", "dinov3", "resnet", "any"]

_WB = r"(weight|bias)"
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = r"blocks\.\d+\."
_PATCHES = (r"cls_token", r"pos_embed", rf"patch_embed\.proj\.{_WB}", rf"norm\.{_WB}")
_VIT = (*_PATCHES, rf"{_BLOCK}(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.{_WB}")
_SPLIT_BIAS = rf"{_BLOCK}(attn\.qkv\.weight|attn\.(q|v)_bias|gamma_[12])"  # no bias of the keys; layer scale
_GATED = rf"{_BLOCK}mlp\.(fc1_g|fc1_x|norm)\.{_WB}"
_BEIT_BLOCKS = (_SPLIT_BIAS, rf"{_BLOCK}(norm1|norm2|attn\.proj|mlp\.fc1|mlp\.fc2)\.{_WB}")

# timm, models/vision_transformer.py, beit.py, eva.py, resnet.py. Patterns match whole names.
FAMILY_KEYS: Mapping[Family, tuple[str, ...]] = {
    "vit": _VIT,
    "dinov2": (*_VIT, rf"{_BLOCK}ls[12]\.gamma", r"reg_token"),
    "beit": (*_PATCHES, *_BEIT_BLOCKS, r"(blocks\.\d+\.attn|rel_pos_bias)\.relative_position_bias_table"),
    "eva": (*_PATCHES, *_BEIT_BLOCKS, _GATED, rf"{_BLOCK}attn\.([qkv]_proj\.weight|[qv]_proj\.bias)"),
    "dinov3": (*_VIT, _GATED, rf"{_BLOCK}gamma_[12]", r"reg_token"),
    "resnet": (
        r"conv1\.weight",
        rf"bn1\.{_NORM}",
        rf"layer[1-4]\.\d+\.(conv[123]\.weight|bn[123]\.{_NORM}|downsample\.0\.weight|downsample\.1\.{_NORM})",
    ),
    "any": (r".+",),  # the network that --arch names decides
}
