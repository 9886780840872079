"""Public formats of DINO, iBOT, DINOv2 and DINOv3 (ViT)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from cim_bench.models.formats.catalogue.common import DDP_PREFIX, DINO_CODE, FINAL_NORM, VIT_KEYS
from cim_bench.models.formats.checks import NO_SINCOS, ROPE_BASE, positions, rotary
from cim_bench.models.formats.format import Check, Format
from cim_bench.models.formats.normalisation import Unsaid

IBOT_CODE = "bytedance/ibot (models/vision_transformer.py, models/head.py, main_ibot.py, extract_backbone_weights.py)"
DINO2_CODE = "facebookresearch/dinov2 (dinov2/models/vision_transformer.py, dinov2/hub/backbones.py)"
DINO3_CODE = "facebookresearch/dinov3 (dinov3/models/vision_transformer.py, dinov3/hub/backbones.py)"
DINO2_NAMES = ((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."), (r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."))
DINO3_NAMES = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
BACKBONE = (DDP_PREFIX + r"backbone\.", "")


def without_class_position(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's register models add no position to the class token (timm, models/vision_transformer.py, _convert_dinov2).

    Raises:
        ValueError: If token or positions are of another form.
    """
    token, places = state["cls_token"], state["pos_embed"]
    if places.ndim != 3 or token.shape != places[:, :1].shape:
        raise ValueError(
            f"its cls_token has shape {tuple(token.shape)} and its pos_embed {tuple(places.shape)}, "
            "not (1, 1, width) and (1, tokens, width)"
        )
    return {**state, "cls_token": token + places[:, :1], "pos_embed": places[:, 1:]}


def without_key_bias(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The bias of queries and values; that of keys is masked (dinov3, layers/attention.py, LinearKMaskedBias)."""
    changed = dict(state)
    for name in [key for key in state if key.endswith(".attn.qkv.bias")]:
        query, _, value = changed.pop(name).chunk(3)
        changed |= {name.replace("qkv.bias", "q_bias"): query, name.replace("qkv.bias", "v_bias"): value}
    return changed


_teacher = partial(Format, family="vit", under=("teacher",), rename=(BACKBONE,), resample="offset")
_encoder = partial(Format, family="vit", has=(*VIT_KEYS, FINAL_NORM), checks=(positions(NO_SINCOS),), resample="offset")
_dino2 = partial(Format, method="DINOv2", family="dinov2", published_size=224, resample="offset", source=DINO2_CODE)
_dino3 = partial(
    Format,
    method="DINOv3",
    family="dinov3",
    also=(r"blocks\.\d+\.ls[12]\.gamma",),
    checks=(Check(rotary, ROPE_BASE),),
    rearrange=without_key_bias,
    options={"global_pool": "token"},
    source=DINO3_CODE,
)

DINO_FORMATS = (
    _teacher(
        name="DINO ViT",
        method="DINO",
        has=(DDP_PREFIX + r"backbone\.cls_token$", DDP_PREFIX + r"head\.last_layer\."),
        dropped=(DDP_PREFIX + r"head\.(mlp|last_layer)\.",),
        source=DINO_CODE,
    ),
    _teacher(
        name="iBOT",
        method="iBOT",
        has=(DDP_PREFIX + r"backbone\.cls_token$", DDP_PREFIX + r"head\.last_layer2\."),
        dropped=(DDP_PREFIX + r"head\.", DDP_PREFIX + r"backbone\.masked_embed$"),
        source=IBOT_CODE,
    ),
    _encoder(name="DINO ViT encoder", method="DINO", source=DINO_CODE),
    _encoder(name="iBOT encoder", method="iBOT", source=IBOT_CODE),
    _encoder(
        name="iBOT student encoder",  # as the ViTs of ImageNet-22k were released
        method="iBOT",
        has=(*VIT_KEYS, FINAL_NORM, r"^masked_embed$"),
        dropped=(r"^masked_embed$",),
        source=IBOT_CODE,
    ),
    _dino2(
        name="DINOv2",
        has=(r"^cls_token$", r"^pos_embed$", r"^mask_token$", r"^blocks\.(\d+\.)?0\.ls1\.gamma$"),
        rename=DINO2_NAMES,
        dropped=(r"^mask_token$",),
    ),
    _dino2(
        name="DINOv2 with registers",
        has=(r"^register_tokens$", r"^pos_embed$", r"^mask_token$", r"^blocks\.(\d+\.)?0\.ls1\.gamma$"),
        rename=(*DINO2_NAMES, (r"^register_tokens$", "reg_token")),
        dropped=(r"^mask_token$",),
        rearrange=without_class_position,
        resample="antialias",
    ),
    _dino2(
        name="DINOv2 teacher",
        under=("teacher",),
        has=(r"^backbone\.cls_token$", r"^backbone\.pos_embed$", r"^backbone\.blocks\.(\d+\.)?0\.ls1\.gamma$"),
        rename=(BACKBONE, *DINO2_NAMES),
        dropped=(r"^backbone\.mask_token$", r"^(dino|ibot)_head\."),
    ),
    _dino3(
        name="DINOv3",
        has=(r"^storage_tokens$", r"^rope_embed\.periods$", r"^blocks\.0\.ls1\.gamma$"),
        rename=DINO3_NAMES,
        dropped=(r"^mask_token$", r"^rope_embed\.periods$", r"\.bias_mask$"),
    ),
    _dino3(
        name="DINOv3 with two class norms",  # ViT-7B, and the ViT-L of satellite images; training alone uses the second
        has=(r"^storage_tokens$", r"^rope_embed\.periods$", r"^blocks\.0\.ls1\.gamma$", r"^local_cls_norm\."),
        rename=DINO3_NAMES,
        dropped=(r"^mask_token$", r"^rope_embed\.periods$", r"\.bias_mask$", r"^local_cls_norm\."),
        normalisation=Unsaid(("imagenet", "sat493m")),
    ),
    _dino3(
        name="DINOv3 teacher",
        under=("teacher",),
        has=(r"^backbone\.storage_tokens$", r"^backbone\.rope_embed\.periods$"),
        rename=(BACKBONE, *DINO3_NAMES),
        dropped=(r"^backbone\.(mask_token|rope_embed\.periods)$", r"\.bias_mask$", r"^(dino|ibot)_head\."),
        normalisation=Unsaid(("imagenet", "sat493m")),
    ),
)
