"""Exports of Hugging Face's transformers (``save_pretrained``): ViTMAE, ViT, I-JEPA, Dinov2, BEiT, data2vec.

``config.json`` beside the weights says which model it is, its heads and its activation; ``preprocessor_config.json``
says the normalisation. Its ``layer_norm_eps`` becomes the network's (`Format.options_of`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from cim_bench.models.formats.catalogue.common import HEAD, POOLED_HEAD
from cim_bench.models.formats.catalogue.dino import without_class_position
from cim_bench.models.formats.checks import NO_CLASS_TOKEN, class_token
from cim_bench.models.formats.format import Check, Format
from cim_bench.models.formats.normalisation import IMAGENET, Beside

CODE = "huggingface/transformers (models/{0}/modeling_{0}.py)"
PREFIX = r"^((vit|ijepa|dinov2|dinov2_with_registers|beit|data2vec_vision)\.)?"
CLASS = PREFIX + r"embeddings\.cls_token$"  # I-JEPA's exports have none
QUERY = PREFIX + r"encoder\.layer\.0\.attention\.attention\.query\.weight$"
NAMES = (
    (PREFIX + r"embeddings\.", "embeddings."),
    (PREFIX + r"encoder\.layer\.", "blocks."),
    (PREFIX + r"encoder\.relative_position_bias\.", "rel_pos_bias."),
    (PREFIX + r"layernorm\.", "norm."),
    (PREFIX + r"pooler\.layernorm\.", "fc_norm."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.relative_position_bias\.", ".attn."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.lambda_([12])$", r".gamma_\1"),
    (r"^classifier\.", "head."),
)
SPLIT = (r"blocks\.\d+\.attn\.(query|key|value)\.(weight|bias)",)


def joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One projection of queries, keys and values out of three; without a bias of keys, q_bias and v_bias as BEiT's."""
    changed = dict(state)
    for name in [key for key in state if key.endswith(".attn.query.weight")]:
        block = name.removesuffix("query.weight")
        for kind in ("weight", "bias"):
            parts = [f"{block}{one}.{kind}" for one in ("query", "key", "value")]
            if all(part in changed for part in parts):  # else what is there keeps its name, and will not fit
                changed[f"{block}qkv.{kind}"] = torch.cat([changed.pop(part) for part in parts])
            elif kind == "bias" and parts[0] in changed and parts[2] in changed:
                changed |= {f"{block}q_bias": changed.pop(parts[0]), f"{block}v_bias": changed.pop(parts[2])}
    return changed


_export = partial(Format, under=("",), has=(QUERY, CLASS), rename=NAMES, also=SPLIT, rearrange=joined)
_vit = partial(
    _export,
    family="vit",
    method="",
    dropped=(PREFIX + r"pooler\.dense\.", r"embeddings\.mask_token$"),
    args=("model_type=vit",),
    resample="antialias",
    normalisation=Beside(),
    source=CODE.format("vit"),
)
_mae = partial(
    _export,
    family="vit",
    method="MAE",
    args=("model_type=vit_mae",),
    normalisation=Beside(otherwise=IMAGENET),
    source=CODE.format("vit_mae"),
)
_dinov2 = partial(
    _export,
    family="dinov2",
    method="DINOv2",
    has=(QUERY, r"encoder\.layer\.0\.layer_scale1\.lambda1$"),
    dropped=(r"embeddings\.mask_token$",),
    args=("model_type=dinov2",),
    published_size=224,
    normalisation=Beside(otherwise=IMAGENET),
)
_jepa = partial(
    _export,
    family="vit",
    method="I-JEPA",
    has=(QUERY, PREFIX + r"embeddings\.position_embeddings$"),
    dropped=(PREFIX + r"pooler\.dense\.", r"embeddings\.mask_token$"),
    checks=(Check(class_token, NO_CLASS_TOKEN),),
    args=("model_type=ijepa",),
    options={"class_token": False, "global_pool": "avg", "fc_norm": False},
    normalisation=Beside(otherwise=IMAGENET),
    source=CODE.format("ijepa"),
)
_beit = partial(
    _export,
    family="beit",
    method="BEiT",
    has=(QUERY, r"encoder\.layer\.0\.lambda_1$"),
    dropped=(r"embeddings\.mask_token$", r"^lm_head\.", r"relative_position_index$"),
    args=("model_type=beit",),
    normalisation=Beside(),
    source=CODE.format("beit"),
)

_data2vec = partial(  # BEiT's network, without other keys
    _beit,
    method="data2vec",
    args=("model_type=data2vec-vision",),
    source="huggingface/transformers (models/data2vec/modeling_data2vec_vision.py)",
)

HUGGINGFACE_FORMATS = (
    _mae(name="Hugging Face ViTMAE", has=(QUERY, CLASS, r"^decoder\."), dropped=(r"^decoder\.",)),
    _mae(name="Hugging Face ViTMAE encoder"),
    _vit(name="Hugging Face ViT"),
    _vit(
        name="Hugging Face ViT classifier",
        kind="classifier",
        has=(QUERY, CLASS, r"^classifier\.weight$"),
        also=(*SPLIT, *HEAD),
    ),
    _dinov2(name="Hugging Face Dinov2", resample="offset", source=CODE.format("dinov2")),
    _dinov2(
        name="Hugging Face Dinov2 with registers",
        has=(QUERY, r"embeddings\.register_tokens$"),
        rename=(*NAMES, (r"^embeddings\.register_tokens$", "reg_token")),
        args=("model_type=dinov2_with_registers",),
        rearrange=lambda state: without_class_position(joined(state)),
        resample="antialias",
        source=CODE.format("dinov2_with_registers"),
    ),
    _jepa(name="Hugging Face I-JEPA"),
    _beit(name="Hugging Face BEiT", also=(*SPLIT, *POOLED_HEAD[1:])),
    _data2vec(name="Hugging Face data2vec", also=(*SPLIT, *POOLED_HEAD[1:])),
    _beit(
        name="Hugging Face BEiT classifier",
        kind="classifier",
        has=(QUERY, r"encoder\.layer\.0\.lambda_1$", r"^classifier\.weight$"),
        also=(*SPLIT, *POOLED_HEAD),
    ),
    _data2vec(
        name="Hugging Face data2vec classifier",
        kind="classifier",
        has=(QUERY, r"encoder\.layer\.0\.lambda_1$", r"^classifier\.weight$"),
        also=(*SPLIT, *POOLED_HEAD),
    ),
)
