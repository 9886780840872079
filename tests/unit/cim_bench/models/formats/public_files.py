"""Tiny files in the public naming of every format, written by hand the other way round: from timm's names."""

from __future__ import annotations

import argparse
import re
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


def script(state: State) -> dict[str, Any]:
    """As MAE's and CIM's training scripts save."""
    return {"model": state, "optimizer": {}, "epoch": 7, "args": argparse.Namespace(epochs=300, lr=1e-3)}


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


def beit(state: State, _other: State) -> Any:
    return script(indexed(state, blocks=False) | some("mask_token", "lm_head.weight", "lm_head.bias"))


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
SHARED: dict[str, Any] = SIZES | {
    "num_classes": 0, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "global_pool": "token",
}  # fmt: skip
BEIT: dict[str, Any] = {"net": "beit_base_patch16_224", "model_args": SHARED}
BEIT_HEAD: dict[str, Any] = {"net": "beit_base_patch16_224", "model_args": SIZES}
RESNET: dict[str, Any] = {"net": "resnet18", "model_args": {"num_classes": 0}}
AS_VIT = {"arch": f"vit_tiny_patch16_224{TINY}"}
AS_DINO2 = {"arch": f"vit_small_patch14_dinov2{TINY}"}
AS_BEIT = {"arch": f"beit_base_patch16_224{TINY}"}
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
    "BEiT pre-trained": PublicFile(**BEIT, pack=beit, ask=AS_BEIT, method="BEiT", epochs=8, mean=HALF, std=HALF),
    "BEiT fine-tuned": PublicFile(
        **BEIT_HEAD, pack=lambda state, other: {"model": indexed(state, blocks=True)},
        ask=AS_BEIT | {"method": "BEiT"}, method="BEiT", mean=HALF, std=HALF,
    ),
    "BEiT v2 fine-tuned": PublicFile(
        **BEIT_HEAD, pack=lambda state, other: {"model": indexed(state, blocks=True)},
        ask=AS_BEIT | {"method": "beit-v2"}, method="BEiT v2",
    ),
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
    return "#ema" if name == "CIM pre-trained, EMA encoder" else ""
