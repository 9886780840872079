"""The public models of each format, built from checkouts of their own code; nothing of that code is here.

``CIM_BENCH_PUBLIC_CIM`` and so on name the checkouts. ``python -m tests.parity.public_formats FILE`` writes the golden
numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import platform
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor, nn

from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD
from tests.golden.weights import images, layout, thin, value
from tests.parity.stand_ins import stand_ins

COMMITS = {
    "CIM": "weivision/Correlational-Image-Modeling@f00e35a",
    "MAE": "facebookresearch/mae@efb2a80",
    "SIMMIM": "microsoft/SimMIM@d3e29bc",
    "BEIT": "microsoft/unilm@768a3c8 (folder beit)",
    "MOCOV3": "facebookresearch/moco-v3@c349e6e",
    "DINO": "facebookresearch/dino@7c446df",
    "DINOV2": "facebookresearch/dinov2@b8931f7",
    "MOCO": "facebookresearch/moco@4397a04",
    "SIMSIAM": "facebookresearch/simsiam@a7bc177",
    "SWAV": "facebookresearch/swav@06b1b7c",
    "IBOT": "bytedance/ibot@da316d8",
    "DATA2VEC": "facebookresearch/data2vec_vision@af9a363 (folder beit)",
    "MFM": "Jiahao000/MFM@c9194b1",
    "BEIT2": "microsoft/unilm@768a3c8 (folder beit2)",
    "EVA01": "baaivision/EVA@5623d08 (folder EVA-01/eva)",
    "EVA02": "baaivision/EVA@5623d08 (folder EVA-02/asuka)",
    "DINOV3": "facebookresearch/dinov3@6876159",
    "IJEPA": "facebookresearch/ijepa@52c1ae9",
    "BARLOWTWINS": "facebookresearch/barlowtwins@8e8d284",
}
HALF = (0.5, 0.5, 0.5)
Outputs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One public file.

    Attributes:
        repo: Which checkout makes it.
        build: Model, from ``tiny`` or ``real``.
        pack: What the public training script saves of it.
        outputs: Final features (N, C), or logits, of normalised images.
        arch: What to ask for where the tiny model's shapes do not tell.
        method: What to ask for where the keys do not tell.
        normalisation: Likewise where the file does not tell it.
        format: What the file is recognised as, where it is not the case's name.
        fused: Whether timm's attention is as it comes; its rounding grows in deep noise without layer scale.
        part: Part of the file, e.g. ``ema``.
        keep: Tensors that keep the values that the public code gives them.
        wrap: What `pack` puts before the model's own names.
        mean: Normalisation of the method.
        std: Likewise.
        pixels: Input size of the tiny and of the real model.
    """

    repo: str
    build: Callable[[bool], nn.Module]
    pack: Callable[[nn.Module], Any]
    outputs: Callable[[nn.Module, Tensor], Outputs]
    arch: str = ""
    method: str = ""
    normalisation: str = ""
    format: str = ""
    fused: bool = True
    part: str = ""
    keep: tuple[str, ...] = ()
    wrap: str = ""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pixels: tuple[int, int] = (32, 224)


def checkout(repo: str) -> Path | None:
    """The folder that the environment names for a repository."""
    folder = os.environ.get(f"CIM_BENCH_PUBLIC_{repo}", "")
    return Path(folder) if folder else None


@contextlib.contextmanager
def public_code(folder: Path) -> Iterator[None]:
    """Imports from a checkout, with what its old timm and NumPy had, and none of it left behind."""
    before = set(sys.modules)
    shims = {name: types.ModuleType(name) for name in ("timm.models.layers", "timm.models.registry")}
    helpers = types.ModuleType("timm.models.layers.helpers")
    for name in ("Mlp", "DropPath", "PatchEmbed", "drop_path", "to_2tuple", "trunc_normal_"):
        setattr(shims["timm.models.layers"], name, getattr(timm.layers, name))
    helpers.to_2tuple = timm.layers.to_2tuple  # type: ignore[attr-defined]
    shims["timm.models.registry"].register_model = lambda model: model  # type: ignore[attr-defined]
    shims |= stand_ins()
    kept = {name: sys.modules.get(name) for name in (*shims, helpers.__name__)}
    transformer = timm.models.vision_transformer
    block = transformer.Block
    sys.modules |= {**shims, helpers.__name__: helpers}
    transformer.Block = lambda *args, qk_scale=None, **options: block(*args, **options)
    transformer.VisionTransformer.num_tokens = 1
    had_float = "float" in vars(np)
    np.float = float  # type: ignore[attr-defined]  # noqa: NPY001
    sys.path.insert(0, str(folder))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(folder))
        transformer.Block = block
        del transformer.VisionTransformer.num_tokens
        if not had_float:
            del np.float  # type: ignore[attr-defined]  # noqa: NPY001
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None) or ""
            if origin.startswith(str(folder)) or not origin:
                del sys.modules[name]
        for name, module in kept.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def public(name: str) -> Any:
    """A module of the checkout in use."""
    return importlib.import_module(name)


def all_cases() -> dict[str, Case]:
    """Those below, and those of the files beside this one."""
    from tests.parity.public_joint_embedding import CASES as JOINT_EMBEDDING
    from tests.parity.public_masked_images import CASES as MASKED_IMAGES

    return CASES | MASKED_IMAGES | JOINT_EMBEDDING


LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)
TINY = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 4}
BASE = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4}
TINY_VIT = "vit_tiny_patch16_224@32,depth=2,embed_dim=48,num_heads=3,patch_size=8"
TINY_BEIT = "beit_base_patch16_224@32,depth=2,embed_dim=48,num_heads=3,patch_size=8"


def tokens(output: Tensor) -> Outputs:
    """Class token and mean patch of (N, 1 + patches, C)."""
    return {"cls": output[:, 0], "mean_patch": output[:, 1:].mean(dim=1)}


def with_args(model: nn.Module) -> dict[str, Any]:
    """As MAE's, CIM's and BEiT's ``save_model``."""
    args = argparse.Namespace(epochs=300, model="a_model", output_dir=Path("runs").name, lr=1e-3, betas=(0.9, 0.95))
    return {
        "model": model.state_dict(),
        "optimizer": {"state": {}},
        "epoch": 99,
        "scaler": {"scale": 1.0},
        "args": args,
    }


def switched(model: nn.Module, imagenet: bool, **marks: Any) -> dict[str, Any]:
    """As BEiT's ``save_model``, with the setting that tells the normalisation, and some that tell the script."""
    packed = with_args(model)
    packed["args"] = argparse.Namespace(epochs=300, imagenet_default_mean_and_std=imagenet, **marks)
    return packed


def distributed(model: nn.Module) -> dict[str, Any]:
    """As the ``save_checkpoint`` of MoCo, SimSiam and SwAV: of a model inside DistributedDataParallel."""
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    return {"epoch": 100, "arch": "an_arch", "state_dict": state, "optimizer": {"state": {}}}


def cim(tiny: bool) -> nn.Module:
    kind = public("models.cim").CorrelationalAutoencoderViT
    sizes: dict[str, Any] = (
        TINY | {"img_size": 32, "context_size": 32, "template_size": 16} if tiny else BASE | {"context_size": 160}
    )
    net: nn.Module = kind(norm_layer=LAYER_NORM, decoder_embed_dim=32 if tiny else 512, decoder_num_heads=4, **sizes)
    return net


def cim_encoder(model: nn.Module) -> dict[str, Any]:
    """The online encoder alone, as users cut it out."""
    state = model.state_dict()
    return {"model": {key: value for key, value in state.items() if not re.match(r"decoder_|\w+_c\.", key)}}


def cim_outputs(model: Any, images: Tensor, part: str) -> Outputs:
    context, templates = model.forward_encoder(images, [images])
    return tokens(context if part == "ema" else templates[0])


def finetuned(name: str, tiny: bool, size: int) -> nn.Module:
    net: nn.Module = public(name).VisionTransformer(
        global_pool=True,
        num_classes=1000,
        img_size=size,
        qkv_bias=True,
        norm_layer=LAYER_NORM,
        **(TINY if tiny else BASE),
    )
    return net


def head_outputs(model: Any, images: Tensor) -> Outputs:
    return {"logits": model.head(model.forward_features(images))}


def mae(tiny: bool) -> nn.Module:
    sizes: dict[str, Any] = TINY | {"img_size": 32} if tiny else dict(BASE)
    decoder = {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 2} if tiny else {}
    net: nn.Module = public("models_mae").MaskedAutoencoderViT(norm_layer=LAYER_NORM, **sizes, **decoder)
    return net


def mae_outputs(model: Any, images: Tensor) -> Outputs:
    return tokens(model.forward_encoder(images, 0.0)[0])  # it shuffles patches, which no feature here depends on


def mae_encoder(model: nn.Module) -> dict[str, Any]:
    """As the released ``mae_pretrain_vit_base.pth``: no decoder, nothing beside the model."""
    state = model.state_dict()
    return {"model": {key: value for key, value in state.items() if not key.startswith(("decoder", "mask_token"))}}


def simmim(tiny: bool) -> nn.Module:
    code = public("models.simmim")
    encoder = code.VisionTransformerForSimMIM(
        img_size=32 if tiny else 224, num_classes=0, qkv_bias=True, norm_layer=LAYER_NORM, init_values=0.1,
        use_abs_pos_emb=False, use_rel_pos_bias=False, use_shared_rel_pos_bias=True, use_mean_pooling=False,
        **(TINY if tiny else BASE),
    )  # fmt: skip
    encoder.in_chans, encoder.patch_size = 3, 8 if tiny else 16
    net: nn.Module = code.SimMIM(encoder=encoder, encoder_stride=8 if tiny else 16)
    return net


def simmim_outputs(model: Any, images: Tensor) -> Outputs:
    side = images.shape[-1] // model.patch_size
    patches = model.encoder(images, torch.zeros(len(images), side, side))
    return {"mean_patch": patches.flatten(2).mean(dim=2)}


def beit_like(name: str, tiny: bool) -> nn.Module:
    net: nn.Module = public(name).VisionTransformer(
        img_size=32 if tiny else 224, num_classes=1000, qkv_bias=True, norm_layer=LAYER_NORM, init_values=0.1,
        use_abs_pos_emb=False, use_rel_pos_bias=True, use_mean_pooling=True, **(TINY if tiny else BASE),
    )  # fmt: skip
    return net


def beit(tiny: bool) -> nn.Module:
    net: nn.Module = public("modeling_pretrain").VisionTransformerForMaskedImageModeling(
        img_size=32 if tiny else 224, norm_layer=LAYER_NORM, init_values=0.1, use_abs_pos_emb=False,
        use_shared_rel_pos_bias=True, **(TINY if tiny else BASE),
    )  # fmt: skip
    return net


def beit_outputs(model: Any, images: Tensor) -> Outputs:
    side = images.shape[-1] // model.patch_embed.patch_size[0]
    return tokens(model.forward_features(images, torch.zeros(len(images), side**2, dtype=torch.bool)))


def moco3_vit(tiny: bool) -> nn.Module:
    if tiny:
        encoder = partial(
            public("vits").VisionTransformerMoCo, img_size=32, qkv_bias=True, norm_layer=LAYER_NORM, **TINY
        )
    else:
        encoder = public("vits").vit_small  # its 12 heads are not the usual 6
    net: nn.Module = public("moco.builder").MoCo_ViT(encoder, dim=16, mlp_dim=32)
    return net


def moco3_encoder(model: nn.Module) -> dict[str, Any]:
    """As moco-v3's ``convert_to_deit.py``, of the ``base_encoder``."""
    return {"model": {key: value for key, value in model.state_dict().items() if not key.startswith("head")}}


def moco3_resnet(tiny: bool) -> nn.Module:
    net: nn.Module = public("moco.builder").MoCo_ResNet(resnet(tiny), dim=16, mlp_dim=32)
    return net


def resnet(tiny: bool) -> Callable[..., nn.Module]:
    return torchvision.models.resnet18 if tiny else torchvision.models.resnet50


def pooled(model: Any, images: Tensor) -> Outputs:
    """What a torchvision ResNet gives to its ``fc``."""
    fc, model.fc = model.fc, nn.Identity()
    output = model(images)
    model.fc = fc
    return {"pool": output}


def dino(tiny: bool, family: str) -> nn.Module:
    code, utils = public("vision_transformer"), public("utils")
    if family == "resnet":
        backbone, dim = resnet(tiny)(weights=None), 512 if tiny else 2048
    else:
        sizes: dict[str, Any] = TINY | {"img_size": [32]} if tiny else BASE | {"embed_dim": 384, "num_heads": 6}
        backbone, dim = code.VisionTransformer(qkv_bias=True, norm_layer=LAYER_NORM, **sizes), 48 if tiny else 384
    teacher: nn.Module = utils.MultiCropWrapper(backbone, code.DINOHead(dim, 32, hidden_dim=16, bottleneck_dim=8))
    return teacher


def dino_file(model: nn.Module) -> dict[str, Any]:
    state = model.state_dict()
    student = {f"module.{key}": torch.zeros_like(value) for key, value in state.items()}
    return {"student": student, "teacher": state, "epoch": 100, "args": argparse.Namespace(epochs=100)}


def dino2(tiny: bool, registers: int) -> nn.Module:
    sizes: dict[str, Any] = (
        TINY | {"img_size": 40} if tiny else {"patch_size": 14, "img_size": 518, "embed_dim": 384, "num_heads": 6}
    )
    chunks = 0 if registers else 1  # the training code saves blocks in chunks, the released files do not
    net: nn.Module = public("dinov2.models.vision_transformer").DinoVisionTransformer(
        init_values=1.0, block_chunks=chunks, num_register_tokens=registers,
        interpolate_antialias=bool(registers), interpolate_offset=0.0 if registers else 0.1, **sizes,
    )  # fmt: skip
    return net


def dino2_outputs(model: Any, images: Tensor) -> Outputs:
    found = model.forward_features(images)
    return {"cls": found["x_norm_clstoken"], "mean_patch": found["x_norm_patchtokens"].mean(dim=1)}


def moco2(tiny: bool) -> nn.Module:
    net: nn.Module = public("moco.builder").MoCo(resnet(tiny), dim=16, K=32, mlp=True)
    return net


def simsiam(tiny: bool) -> nn.Module:
    net: nn.Module = public("simsiam.builder").SimSiam(resnet(tiny), dim=32, pred_dim=16)
    return net


def swav(tiny: bool) -> nn.Module:
    code = public("src.resnet50")
    block, layers = (code.BasicBlock, [2, 2, 2, 2]) if tiny else (code.Bottleneck, [3, 4, 6, 3])
    net: nn.Module = code.ResNet(block, layers, output_dim=8, hidden_mlp=16, nmb_prototypes=12, normalize=True)
    return net


CASES: dict[str, Case] = {
    "CIM pre-trained": Case(
        repo="CIM", build=cim, pack=with_args, outputs=partial(cim_outputs, part=""), arch=TINY_VIT
    ),
    "CIM pre-trained, EMA encoder": Case(
        repo="CIM", build=cim, pack=with_args, outputs=partial(cim_outputs, part="ema"), part="ema", arch=TINY_VIT
    ),
    "CIM encoder": Case(
        repo="CIM", build=cim, pack=cim_encoder, outputs=partial(cim_outputs, part=""), arch=TINY_VIT,
        keep=("pos_embed", "patch_embed.proj.bias"),  # it freezes both, and by them its encoder is recognised
    ),
    "CIM fine-tuned": Case(
        repo="CIM", build=lambda tiny: finetuned("models.vit", False, 224), pack=with_args, outputs=head_outputs,
        keep=("pos_embed",), pixels=(0, 224),  # its positions are always those of 224 pixels
    ),
    "MAE pre-trained": Case(repo="MAE", build=mae, pack=with_args, outputs=mae_outputs, arch=TINY_VIT),
    "MAE encoder": Case(
        repo="MAE", build=mae, pack=mae_encoder, outputs=mae_outputs, arch=TINY_VIT, keep=("pos_embed",)
    ),
    "MAE fine-tuned": Case(
        repo="MAE", build=lambda tiny: finetuned("models_vit", tiny, 32 if tiny else 224), pack=with_args,
        outputs=head_outputs, method="MAE", arch=TINY_VIT,
    ),
    "SimMIM pre-trained": Case(
        repo="SIMMIM", build=simmim, pack=with_args, outputs=simmim_outputs, arch=TINY_BEIT
    ),
    "SimMIM fine-tuned": Case(
        repo="SIMMIM", build=partial(beit_like, "models.vision_transformer"), pack=with_args, outputs=head_outputs,
        method="SimMIM", arch=TINY_BEIT,
    ),
    "BEiT pre-trained": Case(
        repo="BEIT", build=beit, outputs=beit_outputs, arch=TINY_BEIT, mean=HALF, std=HALF,
        pack=partial(switched, imagenet=False, discrete_vae_weight_path=""),
    ),
    "BEiT fine-tuned": Case(
        repo="BEIT", build=partial(beit_like, "modeling_finetune"), pack=partial(switched, imagenet=False),
        outputs=head_outputs, method="BEiT", arch=TINY_BEIT, mean=HALF, std=HALF,
    ),
    "MoCo v3 ViT": Case(
        repo="MOCOV3", build=moco3_vit, pack=distributed, wrap="module.", arch=TINY_VIT,
        outputs=lambda model, images: tokens(model.base_encoder.forward_features(images)),
    ),
    "MoCo v3 encoder for DeiT": Case(
        repo="MOCOV3", build=lambda tiny: moco3_vit(tiny).get_submodule("base_encoder"), pack=moco3_encoder,
        outputs=lambda model, images: tokens(model.forward_features(images)), arch=TINY_VIT, keep=("pos_embed",),
    ),
    "MoCo v3 ResNet": Case(
        repo="MOCOV3", build=moco3_resnet, pack=distributed, wrap="module.",
        outputs=lambda model, images: pooled(model.base_encoder, images),
    ),
    "DINO ViT": Case(
        repo="DINO", build=partial(dino, family="vit"), pack=dino_file, arch=TINY_VIT,
        outputs=lambda model, images: tokens(model.backbone.get_intermediate_layers(images)[0]),
    ),
    "DINO ResNet": Case(
        repo="DINO", build=partial(dino, family="resnet"), pack=dino_file,
        outputs=lambda model, images: {"pool": model.backbone(images)},
    ),
    "DINOv2": Case(
        repo="DINOV2", build=partial(dino2, registers=0), pack=lambda model: model.state_dict(),
        outputs=dino2_outputs,
        arch="vit_small_patch14_dinov2@32,depth=2,embed_dim=48,num_heads=3,patch_size=8",
    ),
    "DINOv2 with registers": Case(
        repo="DINOV2", build=partial(dino2, registers=4), pack=lambda model: model.state_dict(),
        outputs=dino2_outputs,
        arch="vit_small_patch14_reg4_dinov2@32,depth=2,embed_dim=48,num_heads=3,patch_size=8",
    ),
    "DINOv2 teacher": Case(
        repo="DINOV2", build=partial(dino2, registers=0), outputs=dino2_outputs, wrap="backbone.",
        pack=lambda model: {"teacher": {f"backbone.{key}": value for key, value in model.state_dict().items()}},
        arch="vit_small_patch14_dinov2@32,depth=2,embed_dim=48,num_heads=3,patch_size=8",
    ),
    "MoCo v2": Case(
        repo="MOCO", build=moco2, pack=distributed, wrap="module.",
        outputs=lambda model, images: pooled(model.encoder_q, images),
    ),
    "SimSiam": Case(
        repo="SIMSIAM", build=simsiam, pack=distributed, wrap="module.",
        outputs=lambda model, images: pooled(model.encoder, images),
    ),
    "SwAV": Case(
        repo="SWAV", build=swav, pack=distributed, wrap="module.", std=(0.228, 0.224, 0.225),
        outputs=lambda model, images: {"pool": model.forward_backbone(images)},
    ),
}  # fmt: skip


def fill(model: nn.Module, keep: tuple[str, ...], *, tiny: bool) -> None:
    """Moves a model off its initialisation: a tiny one to the golden weights, a real one by noise.

    The golden weights' regular matrices would make ten blocks of real size chaotic.
    """
    made = {}
    for key, old in model.state_dict().items():
        if key in keep or not old.is_floating_point():
            made[key] = old
        elif tiny:
            made[key] = value(key, tuple(old.shape), old.dtype)
        else:
            made[key] = old + (0.1 if old.ndim == 1 else 0.01) * torch.randn(old.shape).abs()
    model.load_state_dict(made)


@torch.no_grad()
def make(case: Case, folder: Path, *, tiny: bool) -> tuple[Any, Outputs, nn.Module]:
    """The public file of a case, its public outputs, and the model."""
    with public_code(folder):
        torch.manual_seed(0)
        model = case.build(tiny)
        fill(model, case.keep, tiny=tiny)
        model.eval()
        size = case.pixels[0 if tiny else 1]
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (case.mean, case.std))
        outputs = case.outputs(model, (images(size) - mean) / std)
        return case.pack(model), outputs, model


def main(target: Path) -> None:
    """Write the golden numbers of all tiny models whose code is there; those of the others stay as they are."""
    golden = json.loads(target.read_text()) if target.exists() else {"formats": {}}
    golden |= {
        "command": "python -m tests.parity.public_formats tests/golden/formats.json, with CIM_BENCH_PUBLIC_* set",
        "commits": COMMITS,
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "python": platform.python_version()},
        "tolerance": 1e-4,
    }
    for name, case in all_cases().items():
        folder = checkout(case.repo)
        if folder is not None and case.pixels[0]:
            golden["formats"][name] = numbers(name, case, folder)
    text = json.dumps(golden, indent=1)
    text = re.sub(r"\[[\d\s.,e-]+\]", lambda row: re.sub(r"\s+", " ", row[0]), text)  # a row of numbers on one line
    target.write_text(text + "\n")


def numbers(name: str, case: Case, folder: Path) -> dict[str, Any]:
    """What the golden file holds of a format: its layout, its settings, and outputs of the tiny model."""
    packed, outputs, _ = make(case, folder, tiny=True)
    args = packed.pop("args", None) if isinstance(packed, dict) else None
    return {
        "repo": case.repo,
        "arch": case.arch,
        "method": case.method,
        "format": case.format or name,
        "normalisation": case.normalisation,
        "part": case.part,
        "image_size": case.pixels[0],
        "wrap": case.wrap,
        "args": vars(args) if args is not None else {},
        "file": layout(packed),
        "outputs": {k: [[float(f"{x:.7g}") for x in row] for row in thin(v).tolist()] for k, v in outputs.items()},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
