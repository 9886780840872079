"""Tiny files in the public naming of every format, written by hand the other way round: from timm's names."""

from __future__ import annotations

import argparse
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from cim_bench.models.positions import sincos_positions
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD

State = dict[str, Tensor]
SIZES: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
TINY = "@32,depth=2,embed_dim=48,num_heads=3,patch_size=8"
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class PublicFile:
    """How a format's file comes from a timm model.

    Attributes:
        net: Name of the timm model.
        model_args: Further arguments.
        pack: From the model's state, and that of another model for momentum copies, to what is saved.
        table: Makes the fixed positions, where the method has such.
        frozen_patch: Whether the patch projection's bias is 0.
        ask: Settings of ``FromCheckpoint`` that this file needs.
        method: What is found.
        epochs: Likewise.
    """

    net: str
    model_args: dict[str, Any]
    pack: Callable[[State, State], Any]
    table: Callable[[int, int], Tensor] | None = None
    frozen_patch: bool = False
    ask: dict[str, Any]
    method: str
    epochs: float | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def build(self, seed: int) -> nn.Module:
        """The model, with nothing at its initialisation."""
        torch.manual_seed(seed)
        net: nn.Module = timm.create_model(self.net, **self.model_args).eval()
        with torch.no_grad():
            for name, value in net.state_dict().items():
                if value.is_floating_point() and name != "pos_embed":
                    value.add_(0.05 * torch.rand_like(value) + 0.01)
            if self.table is not None:
                net.pos_embed.copy_(self.table(48, 4))  # type: ignore[operator]
            if self.frozen_patch:
                net.patch_embed.proj.bias.zero_()  # type: ignore[union-attr,operator]
        return net


def moco3_positions(dim: int, side: int) -> Tensor:
    """As ``build_2d_sincos_position_embedding`` of moco-v3's vits.py: rows first, where MAE has columns first."""
    first, second = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    omega = 1.0 / 10000.0 ** (torch.arange(dim // 4) / (dim // 4))
    a, b = first.flatten()[:, None] * omega, second.flatten()[:, None] * omega
    waves = torch.cat([torch.sin(a), torch.cos(a), torch.sin(b), torch.cos(b)], dim=1)[None]
    return torch.cat([torch.zeros(1, 1, dim), waves], dim=1)


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def some(*names: str) -> State:
    return {name: torch.rand(3, 2) for name in names}


def script(state: State, **args: Any) -> dict[str, Any]:
    """As MAE's and CIM's training scripts save."""
    return {"model": state, "optimizer": {}, "epoch": 7, "args": argparse.Namespace(epochs=300, lr=1e-3, **args)}


def switched(state: State, *, on: bool, **args: Any) -> dict[str, Any]:
    """As the scripts that descend from BEiT's save."""
    return script(state, imagenet_default_mean_and_std=on, **args)


def indexed(state: State, blocks: bool) -> State:
    """The constant that BEiT's code saves with its relative positions."""
    places = [f"blocks.{i}.attn." for i in (0, 1)] if blocks else ["rel_pos_bias."]
    return state | {f"{place}relative_position_index": torch.zeros(17, 17, dtype=torch.int64) for place in places}


def cim(state: State, other: State, *, ema: bool = False) -> Any:
    target, online = (state, other) if ema else (other, state)
    moved = {}
    for key, value in target.items():
        copied = re.match(r"(patch_embed|blocks|norm)\.(.*)", key)
        if copied:
            moved[f"{copied[1]}_c.{copied[2]}"] = value
    fixed = {key: state[key] for key in ("cls_token", "pos_embed")}
    extra = some(
        "decoder_embed.weight", "decoder_corr_block.mlp.fc1.bias", "decoder_pos_embed", "decoder_g_embed_c.0.weight"
    )
    return script({**online, **fixed, **moved, **extra})


def mae(state: State, _other: State) -> Any:
    return script(
        {**state, **some("mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.weight", "decoder_pred.bias")}
    )


def simmim(state: State, _other: State) -> Any:
    inside = under("encoder.", indexed(state, blocks=False) | some("mask_token"))
    return {"model": inside | some("decoder.0.weight", "decoder.0.bias"), "epoch": 7}


def masked(rows: int, *more: str, on: bool, index: bool = True, **args: Any) -> Callable[[State, State], Any]:
    """As BEiT's and its descendants' pre-training, with the rows of its prediction head."""

    def pack(state: State, _other: State) -> Any:
        inside = indexed(state, blocks=False) if index else state
        head = {"lm_head.weight": torch.rand(rows, 48), "lm_head.bias": torch.rand(rows)}
        return switched(inside | some("mask_token", *more) | head, on=on, **args)

    return pack


def mfm(state: State, _other: State) -> Any:
    config = OrderedDict(DATA=OrderedDict(FILTER_TYPE="mfm"))
    return {
        "model": under("encoder.", state) | some("decoder.0.weight", "decoder.0.bias"),
        "epoch": 7,
        "config": config,
    }


def ibot(state: State, other: State) -> Any:
    packed = dino(state, other)
    packed["teacher"] |= some("head.last_layer2.weight_g", "head.last_layer2.weight_v")
    return packed


def jepa(state: State, other: State, *, context: bool = False) -> Any:
    target, online = (other, state) if context else (state, other)
    predictor = under("module.", some("mask_token", "predictor_proj.bias"))
    return {
        "encoder": under("module.", online),
        "target_encoder": under("module.", target),
        "predictor": predictor,
        "epoch": 8,
    }


def eva2_name(key: str) -> str:
    for ours, public in (
        ("fc1_g", "w1"),
        ("fc1_x", "w2"),
        ("mlp.fc1", "mlp.w12"),
        ("fc2", "w3"),
        ("mlp.norm", "mlp.ffn_ln"),
    ):
        key = key.replace(f"{ours}.", f"{public}.")
    return re.sub(r"attn\.([qv])_proj\.bias", r"attn.\1_bias", key)


def eva2(state: State, other: State) -> Any:
    rope = {
        f"{place}rope.freqs_{wave}": torch.rand(16, 16) for place in ("", "blocks.0.attn.") for wave in ("cos", "sin")
    }
    public = {eva2_name(key): value for key, value in state.items()} | rope
    if "head.weight" in state:
        return {"module": public, "ds_version": "0.6"}
    return masked(1024, on=False, index=False)(public, other)


def dino3(*more: str) -> Callable[[State, State], Any]:
    def pack(state: State, _other: State) -> State:
        public = {re.sub(r"gamma_([12])", r"ls\1.gamma", key): value for key, value in state.items()}
        public["storage_tokens"] = public.pop("reg_token")
        for name in [key for key in public if key.endswith("attn.q_bias")]:
            query, value = public.pop(name), public.pop(name.replace("q_bias", "v_bias"))
            public[name.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.rand_like(query), value])
            public[name.replace("q_bias", "qkv.bias_mask")] = torch.ones(3 * len(query))
        return public | some("mask_token", *more) | {"rope_embed.periods": 100.0 ** (torch.arange(4) / 4)}

    return pack


def dino3_teacher(state: State, other: State) -> Any:
    heads = some("dino_head.mlp.0.weight", "ibot_head.last_layer.weight")
    return {"teacher": under("backbone.", dino3()(state, other)) | heads}


HF_NAMES = (
    (r"^(cls_token|reg_token|pos_embed)$", r"embeddings.\1"),
    ("pos_embed", "position_embeddings"),
    ("reg_token", "register_tokens"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^fc_norm\.", "pooler.layernorm."),
    (r"^rel_pos_bias\.", "encoder.relative_position_bias."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.gamma_([12])$", r".lambda_\1"),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.(relative_position_bias_table)", r".attention.attention.relative_position_bias.\1"),
    (r"\.attn\.", ".attention.attention."),
)
HF_MLP = (
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def huggingface(
    state: State, *, prefix: str = "", more: tuple[str, ...] = (), head: State | None = None, dinov2: bool = False
) -> Any:
    """As ``save_pretrained`` names weights."""
    split: State = {}
    for key, value in state.items():
        if ".attn.qkv." in key:
            split |= {
                key.replace("qkv", name): part
                for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True)
            }
        elif key.endswith(("q_bias", "v_bias")):
            split[key.replace("q_bias", "query.bias").replace("v_bias", "value.bias")] = value
        elif key.startswith("head."):
            head = {**(head or {}), key.replace("head.", "classifier."): value}
        else:
            split[key] = value
    public = {}
    for key, value in split.items():
        for ours, theirs in (*HF_NAMES, *(() if dinov2 else HF_MLP)):
            key = re.sub(ours, theirs, key)
        public[key] = value
    return under(prefix, public) | some(*more) | (head or {})


def dino2_of_huggingface(state: State, other: State) -> Any:
    public = dino2_registers(state, other)
    public["reg_token"] = public.pop("register_tokens")
    del public["mask_token"]
    return huggingface(public, more=("embeddings.mask_token",), dinov2=True)


def barlow(state: State, _other: State) -> Any:
    inside = under("backbone.", state) | some("projector.0.weight", "projector.1.running_mean", "bn.running_mean")
    return {"epoch": 8, "model": under("module.", inside), "optimizer": {}}


def moco3(head: str) -> Callable[[State, State], Any]:
    def pack(state: State, other: State) -> Any:
        projector = some(f"base_encoder.{head}.0.weight", f"momentum_encoder.{head}.0.weight", "predictor.0.weight")
        inside = under("base_encoder.", state) | under("momentum_encoder.", other) | projector
        return {"epoch": 8, "arch": "x", "state_dict": under("module.", inside), "optimizer": {}}

    return pack


def dino(state: State, other: State) -> Any:
    heads = some("head.mlp.0.weight", "head.mlp.0.bias", "head.last_layer.weight_g", "head.last_layer.weight_v")
    student = under("module.", under("backbone.", other) | heads)
    return {"student": student, "teacher": under("backbone.", state) | heads, "epoch": 8, "args": argparse.Namespace()}


def chunked(state: State) -> State:
    return {re.sub(r"^blocks\.(\d+)", r"blocks.0.\1", key): value for key, value in state.items()}


def dino2(state: State, _other: State) -> Any:
    return state | some("mask_token")


def dino2_registers(state: State, _other: State) -> Any:
    state = dict(state)
    row = torch.rand(1, 1, 48)  # the public positions have a row for the class token, which timm's model has added
    state["cls_token"], state["pos_embed"] = state["cls_token"] - row, torch.cat([row, state["pos_embed"]], dim=1)
    state["register_tokens"] = state.pop("reg_token")
    return state | some("mask_token")


def dino2_teacher(state: State, _other: State) -> Any:
    inside = under("backbone.", chunked(state) | some("mask_token"))
    return {"teacher": inside | some("dino_head.mlp.0.weight", "ibot_head.last_layer.weight_v")}


def moco2(state: State, other: State) -> Any:
    inside = under("encoder_q.", state | some("fc.0.weight", "fc.2.bias")) | under(
        "encoder_k.", other | some("fc.0.weight")
    )
    return {"epoch": 8, "state_dict": under("module.", inside | some("queue", "queue_ptr"))}


def simsiam(state: State, _other: State) -> Any:
    inside = under("encoder.", state | some("fc.0.weight", "fc.6.bias")) | some(
        "predictor.0.weight", "predictor.3.bias"
    )
    return {"epoch": 8, "state_dict": under("module.", inside)}


def swav(state: State, _other: State) -> Any:
    return under("module.", state | some("projection_head.0.weight", "projection_head.3.bias", "prototypes.weight"))


def solo(state: State, other: State, *, byol: bool) -> Any:
    inside = under("backbone.", state) | some("projector.0.weight", "classifier.weight", "classifier.bias")
    if byol:
        inside |= under("momentum_backbone.", other) | some("momentum_projector.0.weight", "predictor.0.weight")
        inside |= some("predictor.0.bias", "momentum_classifier.weight")
    return {"state_dict": inside, "epoch": 8, "global_step": 3}


def open_mmlab(state: State, other: State, *, byol: bool) -> Any:
    inside = under("backbone.", state) | some("neck.fc0.weight", "head.predictor.fc0.weight")
    if byol:
        inside |= under("target_net.module.0.", other) | some("target_net.module.1.fc0.weight")
    return {"meta": {"epoch": 200}, "state_dict": inside}


def as_it_is(state: State, _other: State) -> Any:
    return state


def in_script(state: State, _other: State) -> Any:
    return script(state)


VIT: dict[str, Any] = {"net": "vit_tiny_patch16_224", "model_args": SIZES | {"num_classes": 0}}
VIT_HEAD: dict[str, Any] = {"net": "vit_tiny_patch16_224", "model_args": SIZES | {"global_pool": "avg"}}
DINO2: dict[str, Any] = {"net": "vit_small_patch14_dinov2", "model_args": SIZES | {"num_classes": 0}}
VIT_POOLED: dict[str, Any] = {"net": "vit_tiny_patch16_224", "model_args": SIZES | {"global_pool": "avg"}}
JEPA: dict[str, Any] = {
    "net": "vit_tiny_patch16_224",
    "model_args": SIZES | {"num_classes": 0, "class_token": False, "global_pool": "avg", "fc_norm": False},
}  # fmt: skip
DINO3: dict[str, Any] = {
    "net": "vit_small_patch16_dinov3_qkvb", "model_args": SIZES | {"num_classes": 0, "global_pool": "token"}
}  # fmt: skip
EVA2_SIZES: dict[str, Any] = SIZES | {"ref_feat_shape": (4, 4)}
SHARED: dict[str, Any] = SIZES | {
    "num_classes": 0, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "global_pool": "token",
}  # fmt: skip
BEIT: dict[str, Any] = {"net": "beit_base_patch16_224", "model_args": SHARED}
BEIT_HEAD: dict[str, Any] = {"net": "beit_base_patch16_224", "model_args": SIZES}
SHARED_HEAD: dict[str, Any] = SIZES | {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
PLAIN: dict[str, Any] = SIZES | {"use_rel_pos_bias": False, "use_abs_pos_emb": True, "init_values": 0.0}
TOKENS: dict[str, Any] = {"num_classes": 0, "global_pool": "token"}
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
RESNET: dict[str, Any] = {"net": "resnet18", "model_args": {"num_classes": 0}}
AS_VIT = {"arch": f"vit_tiny_patch16_224{TINY}"}
AS_DINO2 = {"arch": f"vit_small_patch14_dinov2{TINY}"}
AS_BEIT = {"arch": f"beit_base_patch16_224{TINY}"}
AS_DINO3 = {"arch": f"vit_small_patch16_dinov3_qkvb{TINY}"}
AS_EVA2 = {size: {"arch": f"eva02_{size}_patch14_224{TINY},ref_feat_shape=4x4"} for size in ("tiny", "base")}
OTHER = {"method": "RSB A3"}

FILES: dict[str, PublicFile] = {
    "CIM pre-trained": PublicFile(**VIT, pack=cim, ask=AS_VIT, method="CIM", epochs=8),
    "CIM pre-trained, EMA encoder": PublicFile(
        **VIT, pack=lambda state, other: cim(state, other, ema=True), ask=AS_VIT, method="CIM", epochs=8
    ),
    "CIM encoder": PublicFile(
        **VIT, pack=in_script, table=sincos_positions, frozen_patch=True, ask=AS_VIT, method="CIM", epochs=8
    ),
    "CIM fine-tuned": PublicFile(**VIT_HEAD, pack=in_script, table=sincos_positions, ask=AS_VIT, method="CIM"),
    "MAE pre-trained": PublicFile(**VIT, pack=mae, ask=AS_VIT, method="MAE", epochs=8),
    "MAE encoder": PublicFile(
        **VIT, pack=lambda state, other: {"model": state}, table=sincos_positions, ask=AS_VIT, method="MAE"
    ),
    "MAE fine-tuned": PublicFile(**VIT_HEAD, pack=in_script, ask=AS_VIT | {"method": "MAE"}, method="MAE"),
    "MoCo v3 ViT": PublicFile(**VIT, pack=moco3("head"), ask=AS_VIT, method="MoCo v3", epochs=8),
    "MoCo v3 encoder for DeiT": PublicFile(
        **VIT, pack=lambda state, other: {"model": state}, table=moco3_positions, frozen_patch=True, ask=AS_VIT,
        method="MoCo v3",
    ),
    "DINO ViT": PublicFile(**VIT, pack=dino, ask=AS_VIT, method="DINO", epochs=8),
    "DINO ViT encoder": PublicFile(**VIT, pack=as_it_is, ask=AS_VIT | {"method": "DINO"}, method="DINO"),
    "DINOv2": PublicFile(**DINO2, pack=dino2, ask=AS_DINO2, method="DINOv2"),
    "DINOv2 with registers": PublicFile(
        net="vit_small_patch14_reg4_dinov2", model_args=SIZES | {"num_classes": 0}, pack=dino2_registers,
        ask={"arch": f"vit_small_patch14_reg4_dinov2{TINY}"}, method="DINOv2",
    ),
    "DINOv2 teacher": PublicFile(**DINO2, pack=dino2_teacher, ask=AS_DINO2, method="DINOv2"),
    "timm ViT encoder": PublicFile(
        **VIT, pack=as_it_is, ask={"arch": f"vit_tiny_patch16_224.augreg_in21k{TINY}", "method": "AugReg"},
        method="AugReg", mean=HALF, std=HALF,
    ),
    "timm ViT classifier": PublicFile(
        net="deit_tiny_patch16_224", model_args=SIZES, pack=in_script,
        ask={"arch": f"deit_tiny_patch16_224{TINY}", "method": "DeiT"}, method="DeiT",
    ),
    "SimMIM pre-trained": PublicFile(**BEIT, pack=simmim, ask=AS_BEIT, method="SimMIM", epochs=8),
    "SimMIM fine-tuned": PublicFile(
        **BEIT_HEAD, pack=lambda state, other: {"model": indexed(state, blocks=True)},
        ask=AS_BEIT | {"method": "SimMIM"}, method="SimMIM",
    ),
    "BEiT pre-trained": PublicFile(
        **BEIT, pack=masked(8192, on=False, discrete_vae_weight_path=""), ask=AS_BEIT, method="BEiT", epochs=8,
        mean=HALF, std=HALF,
    ),
    "BEiT fine-tuned": PublicFile(
        **BEIT_HEAD, pack=lambda state, other: switched(indexed(state, blocks=True), on=False),
        ask=AS_BEIT | {"method": "BEiT"}, method="BEiT", mean=HALF, std=HALF,
    ),
    "BEiT v2 pre-trained": PublicFile(
        **BEIT, pack=masked(8192, "cls_pt_layers.0.norm1.weight", on=True), ask=AS_BEIT, method="BEiT v2", epochs=8
    ),
    "BEiT v2 pre-trained, without class layers": PublicFile(
        **BEIT, pack=masked(8192, on=True, tokenizer_weight=""), ask=AS_BEIT, method="BEiT v2", epochs=8
    ),
    "BEiT v2 fine-tuned": PublicFile(
        **BEIT_HEAD, pack=lambda state, other: {"model": indexed(state, blocks=True)},
        ask=AS_BEIT | {"method": "beit-v2", "normalisation": "imagenet"}, method="BEiT v2",
    ),
    "data2vec pre-trained": PublicFile(**BEIT, pack=masked(48, on=True), ask=AS_BEIT, method="data2vec", epochs=8),
    "data2vec fine-tuned": PublicFile(
        net="beit_base_patch16_224", model_args=SHARED_HEAD,
        pack=lambda state, other: {"module": indexed(state, blocks=False)},
        ask=AS_BEIT | {"normalisation": "inception"}, method="data2vec", mean=HALF, std=HALF,
    ),
    "MFM ViT": PublicFile(
        net="beit_base_patch16_224", model_args=PLAIN | TOKENS, pack=mfm, ask=AS_BEIT, method="MFM", epochs=8
    ),
    "MFM fine-tuned": PublicFile(
        net="beit_base_patch16_224", model_args=PLAIN, pack=lambda state, other: {"model": state},
        ask=AS_BEIT | {"method": "MFM"}, method="MFM",
    ),
    "EVA-01 pre-trained": PublicFile(
        net="beit_base_patch16_224", model_args=PLAIN | TOKENS, pack=masked(64, on=False, index=False), ask=AS_BEIT,
        method="EVA-01", epochs=8, mean=CLIP[0], std=CLIP[1],
    ),
    "EVA-01 fine-tuned": PublicFile(
        net="beit_base_patch16_224", model_args=PLAIN, pack=lambda state, other: {"model": state},
        ask=AS_BEIT | {"method": "EVA-01", "normalisation": "clip"}, method="EVA-01", mean=CLIP[0], std=CLIP[1],
    ),
    "EVA-02 pre-trained, tiny and small": PublicFile(
        net="eva02_tiny_patch14_224", model_args=EVA2_SIZES | TOKENS, pack=eva2, ask=AS_EVA2["tiny"], method="EVA-02",
        epochs=8, mean=CLIP[0], std=CLIP[1],
    ),
    "EVA-02 pre-trained, base and large": PublicFile(
        net="eva02_base_patch14_224", model_args=EVA2_SIZES | TOKENS, pack=eva2, ask=AS_EVA2["base"], method="EVA-02",
        epochs=8, mean=CLIP[0], std=CLIP[1],
    ),
    "EVA-02 fine-tuned, tiny and small": PublicFile(
        net="eva02_tiny_patch14_224", model_args=EVA2_SIZES | {"num_classes": 1000}, pack=eva2,
        ask=AS_EVA2["tiny"] | {"normalisation": "clip"}, method="EVA-02", mean=CLIP[0], std=CLIP[1],
    ),
    "EVA-02 fine-tuned, base and large": PublicFile(
        net="eva02_base_patch14_224", model_args=EVA2_SIZES | {"num_classes": 1000}, pack=eva2,
        ask=AS_EVA2["base"] | {"normalisation": "clip"}, method="EVA-02", mean=CLIP[0], std=CLIP[1],
    ),
    "iBOT": PublicFile(**VIT, pack=ibot, ask=AS_VIT, method="iBOT", epochs=8),
    "iBOT encoder": PublicFile(
        **VIT, pack=lambda state, other: {"state_dict": state}, ask=AS_VIT | {"method": "iBOT"}, method="iBOT"
    ),
    "iBOT student encoder": PublicFile(
        **VIT, pack=lambda state, other: {"state_dict": state | some("masked_embed")}, ask=AS_VIT, method="iBOT"
    ),
    "I-JEPA": PublicFile(**JEPA, pack=jepa, ask=AS_VIT, method="I-JEPA", epochs=8),
    "I-JEPA, context encoder": PublicFile(
        **JEPA, pack=lambda state, other: jepa(state, other, context=True), ask=AS_VIT, method="I-JEPA", epochs=8
    ),
    "DINOv3": PublicFile(**DINO3, pack=dino3(), ask=AS_DINO3, method="DINOv3"),
    "DINOv3 with two class norms": PublicFile(
        **DINO3, pack=dino3("local_cls_norm.weight", "local_cls_norm.bias"),
        ask=AS_DINO3 | {"normalisation": "sat493m"}, method="DINOv3", mean=(0.430, 0.411, 0.296),
        std=(0.213, 0.156, 0.143),
    ),
    "DINOv3 teacher": PublicFile(
        **DINO3, pack=dino3_teacher, ask=AS_DINO3 | {"normalisation": "imagenet"}, method="DINOv3"
    ),
    "timm ViT classifier, mean-pooled": PublicFile(
        **VIT_POOLED, pack=as_it_is, ask={"arch": f"vit_tiny_patch16_224.augreg_in21k{TINY}", "method": "AugReg"},
        method="AugReg", mean=HALF, std=HALF,
    ),
    "Hugging Face ViTMAE": PublicFile(
        **VIT, pack=lambda state, other: huggingface(state, prefix="vit.", more=("decoder.mask_token",)), ask=AS_VIT,
        method="MAE",
    ),
    "Hugging Face ViTMAE encoder": PublicFile(
        **VIT, pack=lambda state, other: huggingface(state), ask=AS_VIT | {"method": "MAE"}, method="MAE"
    ),
    "Hugging Face ViT": PublicFile(
        **VIT, pack=lambda state, other: huggingface(state, more=("pooler.dense.weight", "pooler.dense.bias")),
        ask=AS_VIT | {"method": "AugReg", "normalisation": "inception"}, method="AugReg", mean=HALF, std=HALF,
    ),
    "Hugging Face ViT classifier": PublicFile(
        net="vit_tiny_patch16_224", model_args=SIZES, pack=lambda state, other: huggingface(state, prefix="vit."),
        ask=AS_VIT | {"method": "AugReg", "normalisation": "inception"}, method="AugReg", mean=HALF, std=HALF,
    ),
    "Hugging Face Dinov2": PublicFile(
        **DINO2, pack=lambda state, other: huggingface(state, more=("embeddings.mask_token",), dinov2=True),
        ask=AS_DINO2, method="DINOv2",
    ),
    "Hugging Face Dinov2 with registers": PublicFile(
        net="vit_small_patch14_reg4_dinov2", model_args=SIZES | {"num_classes": 0}, pack=dino2_of_huggingface,
        ask={"arch": f"vit_small_patch14_reg4_dinov2{TINY}"}, method="DINOv2",
    ),
    "Hugging Face I-JEPA": PublicFile(
        **JEPA, pack=lambda state, other: huggingface(state), ask=AS_VIT, method="I-JEPA"
    ),
    "Hugging Face BEiT": PublicFile(
        **BEIT, pack=lambda state, other: huggingface(state, prefix="beit.", more=("lm_head.weight", "lm_head.bias")),
        ask=AS_BEIT | {"method": "BEiT", "normalisation": "inception"}, method="BEiT", mean=HALF, std=HALF,
    ),
    "Hugging Face BEiT classifier": PublicFile(
        **BEIT_HEAD, pack=lambda state, other: huggingface(state, prefix="beit."),
        ask=AS_BEIT | {"method": "BEiT", "normalisation": "inception"}, method="BEiT", mean=HALF, std=HALF,
    ),
    "Hugging Face data2vec": PublicFile(
        **BEIT, pack=lambda state, other: huggingface(state),
        ask=AS_BEIT | {"method": "data2vec", "normalisation": "inception"}, method="data2vec", mean=HALF, std=HALF,
    ),
    "Hugging Face data2vec classifier": PublicFile(
        **BEIT_HEAD, pack=lambda state, other: huggingface(state, prefix="data2vec_vision."),
        ask=AS_BEIT | {"method": "data2vec", "normalisation": "inception"}, method="data2vec", mean=HALF, std=HALF,
    ),
    "Barlow Twins": PublicFile(**RESNET, pack=barlow, ask={}, method="Barlow Twins", epochs=8),
    "MFM ResNet": PublicFile(**RESNET, pack=mfm, ask={}, method="MFM", epochs=8),
    "MoCo v3 ResNet": PublicFile(**RESNET, pack=moco3("fc"), ask={}, method="MoCo v3", epochs=8),
    "MoCo v2": PublicFile(**RESNET, pack=moco2, ask={}, method="MoCo v2", epochs=8),
    "SimSiam": PublicFile(**RESNET, pack=simsiam, ask={}, method="SimSiam", epochs=8),
    "SwAV": PublicFile(
        **RESNET, pack=swav, ask={"epochs": 800}, method="SwAV", epochs=800, std=(0.228, 0.224, 0.225)
    ),
    "DINO ResNet": PublicFile(**RESNET, pack=dino, ask={}, method="DINO", epochs=8),
    "BYOL (solo-learn)": PublicFile(
        **RESNET, pack=lambda state, other: solo(state, other, byol=True), ask={}, method="BYOL", epochs=9
    ),
    "solo-learn ResNet": PublicFile(
        **RESNET, pack=lambda state, other: solo(state, other, byol=False), ask={"method": "SimCLR"}, method="SimCLR",
        epochs=9,
    ),
    "BYOL (OpenMMLab)": PublicFile(
        **RESNET, pack=lambda state, other: open_mmlab(state, other, byol=True), ask={}, method="BYOL"
    ),
    "OpenMMLab ResNet": PublicFile(
        **RESNET, pack=lambda state, other: open_mmlab(state, other, byol=False), ask={"method": "SimCLR"},
        method="SimCLR",
    ),
    "ResNet encoder": PublicFile(**RESNET, pack=as_it_is, ask={"method": "DINO"}, method="DINO"),
    "ResNet classifier": PublicFile(net="resnet18", model_args={}, pack=as_it_is, ask=OTHER, method="RSB A3"),
}  # fmt: skip


def part_of(name: str) -> str:
    """What is asked for after ``#``."""
    return {"CIM pre-trained, EMA encoder": "#ema", "I-JEPA, context encoder": "#encoder"}.get(name, "")
