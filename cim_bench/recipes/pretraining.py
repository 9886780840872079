"""Pre-training as published: CIM, MAE and SimMIM for ViTs; CIM and SimMIM for ResNet-50, whose design is ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cim_bench.benchmark import Pretraining
from cim_bench.contracts.pretext import Pretext
from cim_bench.pretrain.cim.method import CIM
from cim_bench.pretrain.mae import MAE
from cim_bench.pretrain.simmim import SimMIM
from cim_bench.spec import Arch, Data, Training

# SimMIM's ViT (models/vision_transformer.py): no absolute positions, one table of relative ones, layer scale.
RELATIVE: dict[str, int | float | str] = {
    "use_shared_rel_pos_bias": True,
    "use_rel_pos_bias": False,
    "init_values": 0.1,
    "global_pool": "token",
}


def _recipe(pretext: Pretext, arch: Arch, **training: Any) -> Pretraining:
    values = {"weight_decay": 0.05, "precision": "bf16", "base_lr": 1.5e-4, **training}
    return Pretraining(pretext=pretext, arch=arch, data=Data(), training=Training(**values))


def _cim(arch: str) -> Pretraining:
    """300 epochs, 40 of warm-up, batch 4096, AdamW (0.9, 0.95), base lr 1.5e-4 per 256, clipping at 1.0."""
    return _recipe(
        CIM(cut_on="device"),
        Arch(name=arch),
        epochs=300,
        warmup_epochs=40,
        effective_batch=4096,
        betas=(0.9, 0.95),
        clip_grad=1.0,
    )


def cim_vit_small() -> Pretraining:
    """CIM pre-training of ViT-S/16 on ImageNet-1K, as published; bf16 and clipping as in docs/pretexts/cim.md.

    Command: ``accelerate launch -m cim_bench.cli pretrain cim_vit_small --data.root IMAGENET``.
    Hardware: 8 GPUs of 80 GB in the paper; any number works, the effective batch stays 4096.
    Time: not measured by us. Expected: 81.6 % top-1 after `finetune_cim_vit_small` (reported).
    """
    return _cim("vit_small_patch16_224")


def cim_vit_base() -> Pretraining:
    """CIM pre-training of ViT-B/16 on ImageNet-1K, as published; bf16 and clipping as in docs/pretexts/cim.md.

    Command: ``accelerate launch -m cim_bench.cli pretrain cim_vit_base --data.root IMAGENET``.
    Hardware: 8 GPUs of 80 GB in the paper; any number works, the effective batch stays 4096.
    Time: not measured by us. Expected: 83.1 % top-1 after `finetune_cim_vit_base` (reported).
    """
    return _cim("vit_base_patch16_224")


def cim_resnet50() -> Pretraining:
    """CIM pre-training of ResNet-50 for 300 epochs; the design is ours (docs/pretexts/cim_resnet.md).

    Command: ``accelerate launch -m cim_bench.cli pretrain cim_resnet50 --data.root IMAGENET``.
    Hardware: 8 GPUs; batch statistics are of one GPU's pass. Time: not measured by us.
    Expected: 78.6 % after `finetune_rsb_a3`, 80.1 % after `finetune_rsb_a2` (the paper's, whose code is not public).
    """
    return replace(_resnet(CIM(context_size=224, cut_on="device"), betas=(0.9, 0.95)), export="ema")


def mae_vit_small() -> Pretraining:
    """MAE pre-training of ViT-S/16: MAE's ViT-B recipe with CIM's 300 epochs; MAE published no ViT-S.

    Command: ``accelerate launch -m cim_bench.cli pretrain mae_vit_small --data.root IMAGENET``.
    Hardware: any number of GPUs, the effective batch stays 4096. Time: not measured by us.
    Expected: 80.6 % after `finetune_mae_vit_small` (in CIM's table, reported).
    """
    return _mae("vit_small_patch16_224", epochs=300)


def mae_vit_base() -> Pretraining:
    """MAE pre-training of ViT-B/16 by PRETRAIN.md: 800 epochs, mask 0.75, normalised pixels, decoder 512 by 8.

    Command: ``accelerate launch -m cim_bench.cli pretrain mae_vit_base --data.root IMAGENET``.
    Hardware: 64 V100 in its documentation; any number works, the effective batch stays 4096.
    Time: not measured by us. Expected: 83.6 % for 1,600 epochs (MAE), 82.9 % for 300 (CIM's table); both reported.
    """
    return _mae("vit_base_patch16_224", epochs=800)


def _mae(arch: str, epochs: int) -> Pretraining:
    return _recipe(MAE(), Arch(name=arch), epochs=epochs, warmup_epochs=40, effective_batch=4096, betas=(0.9, 0.95))


def simmim_vit_base() -> Pretraining:
    """SimMIM pre-training of ViT-B/16 as published: 800 epochs, relative positions shared by all blocks.

    Command: ``accelerate launch -m cim_bench.cli pretrain simmim_vit_base --data.root IMAGENET``.
    Hardware: 16 GPUs of 128 images in its documentation; the effective batch stays 2048.
    Time: not measured by us. Expected: 83.8 % after `finetune_simmim_vit_base` (its README, reported).
    """
    return _simmim(Arch(name="beit_base_patch16_224", options=RELATIVE))


def simmim_vit_base_plain() -> Pretraining:
    """SimMIM pre-training of the same plain ViT-B/16 as CIM and MAE: fixed sin-cos positions, no layer scale.

    Command: ``accelerate launch -m cim_bench.cli pretrain simmim_vit_base_plain --data.root IMAGENET``.
    Hardware and time: as `simmim_vit_base`, not measured by us. Expected: no published figure.
    """
    return _simmim(Arch(name="vit_base_patch16_224"))


def simmim_vit_small_plain() -> Pretraining:
    """SimMIM pre-training of the same plain ViT-S/16 as CIM and MAE; SimMIM published no ViT-S.

    Command: ``accelerate launch -m cim_bench.cli pretrain simmim_vit_small_plain --data.root IMAGENET``.
    Hardware and time: not measured by us. Expected: 80.9 % for 300 epochs in CIM's table (reported).
    """
    return _simmim(Arch(name="vit_small_patch16_224"))


def _simmim(arch: Arch) -> Pretraining:
    """800 epochs, 10 of warm-up, a tenth of the rate after 700; batch 2048, base lr 1e-4 per 512, clipping at 5."""
    return _recipe(
        SimMIM(),
        arch,
        epochs=800,
        warmup_epochs=10,
        milestones=(700.0,),
        effective_batch=2048,
        base_lr=1e-4,
        lr_batch=512,
        clip_grad=5.0,
    )


def simmim_resnet50() -> Pretraining:
    """SimMIM pre-training of ResNet-50 for 300 epochs; the design is ours (docs/pretexts/simmim.md).

    Command: ``accelerate launch -m cim_bench.cli pretrain simmim_resnet50 --data.root IMAGENET``.
    Hardware: 8 GPUs; batch statistics are of one GPU's pass. Time: not measured by us.
    Expected: 77.7 % after `finetune_rsb_a3`, 79.5 % after `finetune_rsb_a2` (CIM's table, reported).
    """
    return _resnet(SimMIM(), betas=(0.9, 0.999))


def _resnet(pretext: Pretext, betas: tuple[float, float]) -> Pretraining:
    """Base lr 1.5e-4 per 256, 20 epochs of warm-up, clipping at 3, as MFM's ResNet-50 by the same authors."""
    return _recipe(
        pretext,
        Arch(name="resnet50"),
        epochs=300,
        warmup_epochs=20,
        effective_batch=2048,
        betas=betas,
        clip_grad=3.0,
    )
