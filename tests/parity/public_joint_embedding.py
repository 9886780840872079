"""The public models of iBOT, DINOv3, I-JEPA and Barlow Twins; see `public_formats`."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from tests.parity.public_formats import (
    BASE,
    LAYER_NORM,
    TINY,
    TINY_VIT,
    Case,
    Outputs,
    dino2_outputs,
    public,
    tokens,
)

SMALL = BASE | {"embed_dim": 384, "num_heads": 6}
SIZES = "@32,depth=2,embed_dim=48,num_heads=3,patch_size=8"


def ibot(tiny: bool, masked: bool) -> nn.Module:
    code = public("models.vision_transformer")
    backbone = code.VisionTransformer(
        img_size=[32 if tiny else 224], qkv_bias=True, return_all_tokens=True, masked_im_modeling=masked,
        **(TINY if tiny else SMALL),
    )  # fmt: skip
    head = public("models.head").iBOTHead(
        backbone.embed_dim, 16, patch_out_dim=16, shared_head=not masked, hidden_dim=16, bottleneck_dim=8
    )
    net: nn.Module = public("utils").MultiCropWrapper(backbone, head)
    return net


def ibot_file(model: nn.Module) -> dict[str, Any]:
    """As ``train_ibot`` saves; the student has a mask embedding, and here zeros."""
    state = model.state_dict()
    student = {f"module.{key}": torch.zeros_like(value) for key, value in state.items()}
    student["module.backbone.masked_embed"] = torch.zeros(1, state["backbone.cls_token"].shape[-1])
    center = {"center": torch.zeros(1, 16), "center2": torch.zeros(1, 1, 16)}
    args = argparse.Namespace(epochs=100, patch_out_dim=16)
    return {"student": student, "teacher": state, "epoch": 100, "args": args, "ibot_loss": center}


def ibot_backbone(model: nn.Module) -> dict[str, Any]:
    """As ``extract_backbone_weights.py``."""
    return {"state_dict": model.state_dict()}


def ibot_outputs(backbone: Any, images: Tensor) -> Outputs:
    backbone.masked_im_modeling = False  # else it wants a mask
    return tokens(backbone(images, return_all_tokens=True))


def dino3(tiny: bool, gated: bool, bias: bool = True) -> nn.Module:
    """As ``dinov3/hub/backbones.py``: S/16, and with gated units S+/16; a tiny one without bias is like the 7B."""
    sizes: dict[str, Any] = TINY | {"img_size": 32} if tiny else SMALL
    sizes = {key: value for key, value in sizes.items() if key != "mlp_ratio"}
    net: Any = public("dinov3.models.vision_transformer").DinoVisionTransformer(
        pos_embed_rope_base=100, pos_embed_rope_dtype="fp32", ffn_ratio=6 if gated else 4, qkv_bias=bias,
        layerscale_init=1e-5, norm_layer="layernormbf16", ffn_layer="swiglu" if gated else "mlp", n_storage_tokens=4,
        mask_k_bias=True, untie_global_and_local_cls_norm=not bias, **sizes,
    )  # fmt: skip
    net.init_weights()
    made: nn.Module = net
    return made


def dino3_teacher(model: nn.Module) -> dict[str, Any]:
    """As ``do_test`` of ``dinov3/train/train.py``."""
    heads = {f"{name}_head.{part}": torch.zeros(8, 8) for name in ("dino", "ibot") for part in ("mlp.0.weight",)}
    return {"teacher": {f"backbone.{key}": value for key, value in model.state_dict().items()} | heads}


def ijepa(tiny: bool) -> nn.Module:
    net: nn.Module = public("src.models.vision_transformer").VisionTransformer(
        img_size=[32 if tiny else 224], qkv_bias=True, norm_layer=LAYER_NORM, **(TINY if tiny else BASE)
    )
    return net


def ijepa_file(model: nn.Module) -> dict[str, Any]:
    """As ``src/train.py``: three networks inside DistributedDataParallel, of which the target encoder is evaluated."""
    target = {f"module.{key}": value for key, value in model.state_dict().items()}
    online = {key: torch.zeros_like(value) for key, value in target.items()}
    predictor = {"module.mask_token": torch.zeros(1, 1, 8), "module.predictor_pos_embed": torch.zeros(1, 16, 8)}
    entries = {"encoder": online, "predictor": predictor, "target_encoder": target}
    return {**entries, "opt": {"state": {}}, "scaler": None, "epoch": 300, "loss": 0.1, "batch_size": 128, "lr": 1e-3}


def barlow_twins(tiny: bool) -> nn.Module:
    whole = torchvision.models.resnet50
    if tiny:
        torchvision.models.resnet50 = torchvision.models.resnet18  # its depth is written into the public code
    try:
        net: nn.Module = public("main").BarlowTwins(argparse.Namespace(projector="16-16-8"))
    finally:
        torchvision.models.resnet50 = whole
    return net


def barlow_twins_file(model: nn.Module) -> dict[str, Any]:
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    return {"epoch": 1000, "model": state, "optimizer": {"state": {}}}


def pooled_backbone(model: Any, images: Tensor) -> Outputs:
    return {"pool": model.backbone(images)}


ROPE = ("rope_embed.periods",)
MASKS = tuple(f"blocks.{i}.attn.qkv.bias_mask" for i in range(12))
CASES: dict[str, Case] = {
    "iBOT": Case(
        repo="IBOT", build=partial(ibot, masked=False), pack=ibot_file, arch=TINY_VIT,
        outputs=lambda model, images: ibot_outputs(model.backbone, images),
    ),
    "iBOT student encoder": Case(
        repo="IBOT", build=lambda tiny: ibot(tiny, masked=True).get_submodule("backbone"), pack=ibot_backbone,
        outputs=ibot_outputs, arch=TINY_VIT,
    ),
    "DINOv3": Case(
        repo="DINOV3", build=partial(dino3, gated=False), pack=lambda model: model.state_dict(), outputs=dino2_outputs,
        arch=f"vit_small_patch16_dinov3_qkvb{SIZES}", keep=(*ROPE, *MASKS),
    ),
    "DINOv3, gated": Case(
        repo="DINOV3", build=partial(dino3, gated=True), pack=lambda model: model.state_dict(), outputs=dino2_outputs,
        arch=f"vit_small_plus_patch16_dinov3_qkvb{SIZES}", keep=(*ROPE, *MASKS), format="DINOv3",
    ),
    "DINOv3 with two class norms": Case(
        repo="DINOV3", build=partial(dino3, gated=True, bias=False), pack=lambda model: model.state_dict(),
        outputs=dino2_outputs, arch=f"vit_small_plus_patch16_dinov3{SIZES}", keep=ROPE, normalisation="imagenet",
    ),
    "DINOv3 teacher": Case(
        repo="DINOV3", build=partial(dino3, gated=False), pack=dino3_teacher, outputs=dino2_outputs, wrap="backbone.",
        arch=f"vit_small_patch16_dinov3_qkvb{SIZES}", keep=(*ROPE, *MASKS), normalisation="imagenet",
    ),
    "I-JEPA": Case(
        repo="IJEPA", build=ijepa, pack=ijepa_file, wrap="module.",
        outputs=lambda model, images: {"mean_patch": model(images).mean(dim=1)},
        arch=f"vit_tiny_patch16_224{SIZES}",
    ),
    "Barlow Twins": Case(
        repo="BARLOWTWINS", build=barlow_twins, pack=barlow_twins_file, wrap="module.", outputs=pooled_backbone
    ),
}  # fmt: skip
