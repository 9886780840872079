"""The public models of masked image modelling with BEiT's and EVA's attention; see `public_formats`."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.parity.public_formats import (
    BASE,
    HALF,
    LAYER_NORM,
    TINY,
    TINY_BEIT,
    Case,
    Outputs,
    head_outputs,
    public,
    switched,
    tokens,
)

CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
SIZES_OF_EVA = ",depth=2,embed_dim=48,num_heads=3,patch_size=8"
EVA1_TINY = TINY | {"mlp_ratio": 6144 / 1408}  # of EVA-g, whose inner width is no multiple
EVA1_BASE = {"patch_size": 14, "embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 4}


def with_average(model: nn.Module, **marks: Any) -> dict[str, Any]:
    """As data2vec's, which keeps its teacher."""
    teacher = {key: value + 1 for key, value in model.state_dict().items()}
    return switched(model, True, **marks) | {"model_ema": teacher}


def deepspeed(model: nn.Module) -> dict[str, Any]:
    """As ``save_checkpoint`` of DeepSpeed writes ``mp_rank_00_model_states.pt``; it keeps no ``args``."""
    return {"module": model.state_dict(), "optimizer": None, "epoch": 99, "global_steps": 1, "dp_world_size": 8}


def unmasked(model: Any, images: Tensor) -> Tensor:
    side = images.shape[-1] // model.patch_embed.patch_size[0]
    found: Tensor = model.forward_features(images, torch.zeros(len(images), side**2, dtype=torch.bool))
    return found


def data2vec(tiny: bool) -> nn.Module:
    net: nn.Module = public("modeling_cyclical").VisionTransformerForCyclicalTraining(
        img_size=32 if tiny else 224, norm_layer=LAYER_NORM, init_values=0.1, use_abs_pos_emb=False,
        use_shared_rel_pos_bias=True, **(TINY if tiny else BASE),
    )  # fmt: skip
    return net


def data2vec_outputs(model: Any, images: Tensor) -> Outputs:
    return tokens(model.forward_features(images, bool_masked_pos=None, layer_results=None))


def data2vec_tuned(tiny: bool) -> nn.Module:
    net: nn.Module = public("modeling_finetune").VisionTransformer(
        img_size=32 if tiny else 224, qkv_bias=True, norm_layer=LAYER_NORM, init_values=0.1, use_abs_pos_emb=False,
        use_shared_rel_pos_bias=True, use_mean_pooling=True, **(TINY if tiny else BASE),
    )  # fmt: skip
    return net


def beit2(tiny: bool, class_layers: bool) -> nn.Module:
    code = public("modeling_pretrain")
    kind, more = code.VisionTransformerForMaskedImageModeling, {}
    if class_layers:
        kind, more = code.VisionTransformerForMaskedImageModelingCLS, {"early_layers": 1 if tiny else 9}
    net: nn.Module = kind(
        img_size=32 if tiny else 224, norm_layer=LAYER_NORM, init_values=0.1, use_abs_pos_emb=False,
        use_shared_rel_pos_bias=True, **more, **(TINY if tiny else BASE),
    )  # fmt: skip
    return net


def beit2_outputs(model: Any, images: Tensor) -> Outputs:
    found = unmasked(model, images)
    return tokens(found[0] if isinstance(found, tuple) else found)


def mfm_settings(kind: str) -> SimpleNamespace:
    """What its ``configs/*/mfm_pretrain*.yaml`` say, as far as its model reads it."""
    loss = {"LOSS_GAMMA": 1.0, "MATRIX_GAMMA": 1.0, "PATCH_FACTOR": 1, "AVE_SPECTRUM": False, "WITH_MATRIX": False}
    loss |= {"LOG_MATRIX": False, "BATCH_MATRIX": False}
    data = {"FILTER_TYPE": "mfm", "MASK_RADIUS1": 16, "MASK_RADIUS2": 999}
    decoder = SimpleNamespace(DEPTH=0)
    model = {"TYPE": kind, "RECOVER_TARGET_TYPE": "masked", "FREQ_LOSS": SimpleNamespace(**loss)}
    vit = SimpleNamespace(DECODER=decoder)
    resnet_part = SimpleNamespace(IN_CHANS=3)
    return SimpleNamespace(DATA=SimpleNamespace(**data), MODEL=SimpleNamespace(**model, VIT=vit, RESNET=resnet_part))


def mfm_vit(tiny: bool) -> nn.Module:
    code, settings = public("models.mfm"), mfm_settings("vit")
    encoder = code.VisionTransformerForMFM(
        settings, img_size=32 if tiny else 224, num_classes=0, qkv_bias=True, norm_layer=LAYER_NORM, init_values=None,
        use_abs_pos_emb=True, use_mean_pooling=False, **(TINY if tiny else BASE),
    )  # fmt: skip
    net: nn.Module = code.MFM(encoder=encoder, encoder_stride=16, decoder=None, config=settings)
    return net


def mfm_vit_outputs(model: Any, images: Tensor) -> Outputs:
    model.encoder.decoder_depth = 1  # leaves the class token in
    return tokens(model.encoder(images, images))


def mfm_resnet(tiny: bool) -> nn.Module:
    code, settings = public("models.mfm"), mfm_settings("resnet")
    block, layers = (public("timm.models.resnet").BasicBlock, [2, 2, 2, 2]) if tiny else (code.Bottleneck, [3, 4, 6, 3])
    encoder = code.ResNetForMFM(settings, block=block, layers=layers, num_classes=0)
    net: nn.Module = code.MFM(encoder=encoder, encoder_stride=32, decoder=None, config=settings)
    return net


def mfm_tuned(tiny: bool) -> nn.Module:
    net: nn.Module = public("models.vision_transformer").VisionTransformer(
        img_size=32 if tiny else 224, qkv_bias=True, norm_layer=LAYER_NORM, init_values=None, use_abs_pos_emb=True,
        use_mean_pooling=True, **(TINY if tiny else BASE),
    )  # fmt: skip
    return net


def mfm_file(model: nn.Module) -> dict[str, Any]:
    """As its ``save_checkpoint``, whose settings are a yacs dictionary."""
    settings = {"DATA": {"FILTER_TYPE": "mfm", "MASK_RADIUS1": 16}, "MODEL": {"RECOVER_TARGET_TYPE": "masked"}}
    return {
        "model": model.state_dict(),
        "optimizer": {"state": {}},
        "max_accuracy": 0.0,
        "epoch": 299,
        "config": settings,
    }


def eva1(tiny: bool) -> nn.Module:
    net: nn.Module = public("modeling_pretrain").VisionTransformerForMaskedImageModeling(
        img_size=32 if tiny else 224, predict_feature_dim=24 if tiny else 1024, init_values=0,
        norm_layer=partial(public("modeling_finetune").LayerNormWithForceFP32, eps=1e-6),
        **(EVA1_TINY if tiny else EVA1_BASE),
    )  # fmt: skip
    return net


def eva1_tuned(tiny: bool) -> nn.Module:
    net: nn.Module = public("modeling_finetune").VisionTransformer(
        img_size=32 if tiny else 196, qkv_bias=True, norm_layer=LAYER_NORM, init_values=0, use_mean_pooling=True,
        **(EVA1_TINY if tiny else EVA1_BASE),
    )  # fmt: skip
    return net


def eva2_sizes(tiny: bool, split: bool) -> dict[str, Any]:
    """Tiny and small have one projection and xformers' SwiGLU, base and large three and a norm inside."""
    own = {"naiveswiglu": True, "subln": True} if split else {"swiglu": True}
    shape: dict[str, Any] = dict(TINY) if tiny else {"patch_size": 14, "depth": 12}
    if not tiny:
        shape |= {"embed_dim": 768, "num_heads": 12} if split else {"embed_dim": 192, "num_heads": 3}
    common = {"qkv_bias": True, "xattn": True, "rope": True, "init_values": 0, "norm_layer": LAYER_NORM}
    return shape | own | common | {"mlp_ratio": 4 * 2 / 3}


def eva2(tiny: bool, split: bool) -> nn.Module:
    net: nn.Module = public("modeling_pretrain").VisionTransformerForMaskedImageModeling(
        img_size=32 if tiny else 224, predict_feature_dim=24 if tiny else 1024, **eva2_sizes(tiny, split)
    )
    return net


def eva2_tuned(tiny: bool, split: bool) -> nn.Module:
    net: nn.Module = public("modeling_finetune").VisionTransformer(
        img_size=48 if tiny else 336, pt_hw_seq_len=4 if tiny else 16, intp_freq=True, use_checkpoint=False,
        use_mean_pooling=True, **eva2_sizes(tiny, split),
    )  # fmt: skip
    return net


def eva_outputs(model: Any, images: Tensor) -> Outputs:
    return tokens(unmasked(model, images))


def logits(model: Any, images: Tensor) -> Outputs:
    return {"logits": model(images)}


ROPES = ("rope", *(f"blocks.{i}.attn.rope" for i in range(12)))  # constants, and one module by all these names
FIXED = tuple(f"{rope}.freqs_{wave}" for rope in ROPES for wave in ("cos", "sin"))
TEACHER = {"teacher_type": "clip", "teacher_out_feat_dim": 24}
CASES: dict[str, Case] = {
    "data2vec pre-trained": Case(
        repo="DATA2VEC", build=data2vec, outputs=data2vec_outputs, arch=TINY_BEIT,
        pack=partial(with_average, target_layers="[6,7]", l1_beta=2.0),
    ),
    "data2vec fine-tuned": Case(
        repo="DATA2VEC", build=data2vec_tuned, outputs=head_outputs, pack=deepspeed, arch=TINY_BEIT, method="data2vec",
        mean=HALF, std=HALF, normalisation="inception",  # no settings in the file
    ),
    "BEiT v2 pre-trained, without class layers": Case(
        repo="BEIT2", build=partial(beit2, class_layers=False), outputs=beit2_outputs, arch=TINY_BEIT,
        pack=partial(switched, imagenet=True, tokenizer_weight="x", head_layers=2),
    ),
    "BEiT v2 pre-trained": Case(
        repo="BEIT2", build=partial(beit2, class_layers=True), outputs=beit2_outputs, arch=TINY_BEIT,
        pack=partial(switched, imagenet=True, tokenizer_weight="x", head_layers=2),
    ),
    "MFM ViT": Case(repo="MFM", build=mfm_vit, outputs=mfm_vit_outputs, pack=mfm_file, arch=TINY_BEIT, fused=False),
    "MFM ResNet": Case(
        repo="MFM", build=mfm_resnet, pack=mfm_file, pixels=(64, 224),
        outputs=lambda model, images: {"pool": model.encoder(images, images).mean(dim=(2, 3))},
    ),
    "MFM fine-tuned": Case(
        repo="MFM", build=mfm_tuned, outputs=head_outputs, pack=mfm_file, arch=TINY_BEIT, method="MFM"
    ),
    "EVA-01 pre-trained": Case(
        repo="EVA01", build=eva1, outputs=eva_outputs, arch=TINY_BEIT, fused=False,
        pack=partial(switched, imagenet=False, **TEACHER), **CLIP,
    ),
    "EVA-01 fine-tuned": Case(
        repo="EVA01", build=eva1_tuned, outputs=logits, method="EVA-01", pixels=(32, 196),
        arch=TINY_BEIT, pack=partial(switched, imagenet=False), **CLIP,
    ),
    "EVA-02 pre-trained, tiny and small": Case(
        repo="EVA02", build=partial(eva2, split=False), outputs=eva_outputs, keep=FIXED,
        arch=f"eva02_tiny_patch14_224@32{SIZES_OF_EVA},ref_feat_shape=4x4",
        pack=partial(switched, imagenet=False, **TEACHER), **CLIP,
    ),
    "EVA-02 pre-trained, base and large": Case(
        repo="EVA02", build=partial(eva2, split=True), outputs=eva_outputs, keep=FIXED,
        arch=f"eva02_base_patch14_224@32{SIZES_OF_EVA},ref_feat_shape=4x4",
        pack=partial(switched, imagenet=False, **TEACHER), **CLIP,
    ),
    "EVA-02 fine-tuned, tiny and small": Case(
        repo="EVA02", build=partial(eva2_tuned, split=False), outputs=logits, keep=FIXED, pixels=(48, 336),
        arch=f"eva02_tiny_patch14_224@48{SIZES_OF_EVA},ref_feat_shape=4x4",
        pack=partial(switched, imagenet=False), **CLIP,
    ),
    "EVA-02 fine-tuned, base and large": Case(
        repo="EVA02", build=partial(eva2_tuned, split=True), outputs=logits, keep=FIXED, pixels=(48, 336),
        arch=f"eva02_base_patch14_224@48{SIZES_OF_EVA},ref_feat_shape=4x4",
        pack=partial(switched, imagenet=False), **CLIP,
    ),
}  # fmt: skip
