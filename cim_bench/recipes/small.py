"""The paper's matrix in miniature: small networks, pretexts and probes that `demo` and `cifar10` share."""

from __future__ import annotations

from dataclasses import replace

from cim_bench.benchmark import Pretraining, RandomInit
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.contracts.pretext import Pretext
from cim_bench.evals.knn import KNN
from cim_bench.evals.linear_probe import LinearProbe
from cim_bench.pretrain.cim.method import CIM
from cim_bench.pretrain.mae import MAE
from cim_bench.pretrain.simmim import SimMIM
from cim_bench.spec import OF_BENCHMARK, Arch, FromCheckpoint, Machine, Training

Options = dict[str, int | float | str | tuple[int, ...]]
VITS, RESNETS = ("*-ViT",), ("Scratch-ResNet", "SimMIM-ResNet", "CIM-ResNet")
TUNED = (*VITS, *RESNETS)
FROZEN = ("Random-ResNet", *RESNETS[1:])  # a random ResNet gives features with statistics of images
ONLY = {"knn": VITS, "knn_resnet": FROZEN, "linear_probe": VITS, "linear_probe_resnet": FROZEN}


def vit(image_size: int) -> Arch:
    """A ViT of 128 channels and 4 blocks that sees 8 by 8 patches."""
    options: Options = {"patch_size": image_size // 8, "embed_dim": 128, "depth": 4, "num_heads": 4}
    return Arch(name="vit_small_patch16_224", image_size=image_size, options=options)


def resnet(image_size: int) -> Arch:
    """A ResNet of 4 blocks and half the usual channels; its last map has 4 by 4 cells."""
    options: Options = {"channels": (32, 64, 128, 256), "stem_width": 16, "output_stride": image_size // 4}
    return Arch(name="resnet10t", image_size=image_size, options=options)


def cim(image_size: int) -> CIM:
    """CIM with four exemplars of half the context's side.

    Maps start by Xavier's rule (``map_std=None``): from the public code's start, trainings this short get less far
    (docs/pretexts/cim.md). Exemplars are cut for a whole batch, where the model is: image by image, that costs a core
    several times as much at this size.
    """
    return CIM(
        context_size=image_size,
        exemplar_size=image_size // 2,
        num_exemplars=4,
        decoder_dim=128,
        decoder_heads=4,
        map_std=None,
        cut_on="device",
    )


def plain_cim(image_size: int) -> CIM:
    """The same with exemplars upright and in their own colours.

    With the published changes a network trained this briefly learns only where exemplars tend to lie
    (docs/pretexts/cim.md), the ResNet too (docs/pretexts/cim_resnet.md).
    """
    return replace(cim(image_size), max_degrees=0, photometric=False)


def mae() -> MAE:
    """MAE with a decoder of two blocks of 64 channels."""
    return MAE(decoder_dim=64, decoder_depth=2, decoder_heads=4)


def simmim(image_size: int) -> SimMIM:
    """SimMIM with squares of a quarter of the image's side."""
    return SimMIM(mask_patch=image_size // 4, drop_path=0.0)


def training(epochs: int, warmup_epochs: float) -> Training:
    """One budget for all methods."""
    return Training(
        epochs=epochs,
        warmup_epochs=warmup_epochs,
        effective_batch=64,
        base_lr=2e-3,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        clip_grad=1.0,
    )


def subjects(
    machine: Machine, *, image_size: int, vits: Training, resnets: Training
) -> dict[str, Pretraining | FromCheckpoint | RandomInit]:
    """Scratch, SimMIM, MAE and CIM on the ViT; Scratch, Random, SimMIM and CIM on the ResNet.

    Scratch-ResNet is what fine-tuning starts from. Random-ResNet is the same network as a frozen one is compared with.
    """

    def made(arch: Arch, pretext: Pretext, schedule: Training) -> Pretraining:
        return Pretraining(pretext=pretext, arch=arch, data=OF_BENCHMARK, machine=machine, training=schedule)

    resnet_cim = replace(made(resnet(image_size), cim(image_size), resnets), export="ema")

    return {
        "Scratch-ViT": RandomInit(arch=vit(image_size), pretext=plain_cim(image_size)),
        "SimMIM-ViT": made(vit(image_size), simmim(image_size), vits),
        "MAE-ViT": made(vit(image_size), mae(), vits),
        "CIM-ViT": made(vit(image_size), plain_cim(image_size), vits),
        "Scratch-ResNet": RandomInit(arch=resnet(image_size)),
        "Random-ResNet": RandomInit(arch=resnet(image_size), calibrate=1024),
        "SimMIM-ResNet": made(resnet(image_size), simmim(image_size), resnets),
        "CIM-ResNet": resnet_cim,
    }


def probes(linear: Training) -> dict[str, Evaluator]:
    """k-NN and linear probing, on the mean of a ViT's patch tokens or a ResNet's pooled map."""
    knn = KNN(feature="mean_patch", crop_pct=1.0)
    probe = LinearProbe(feature="mean_patch", augment="none", crop_pct=1.0, training=linear)
    return {
        "knn": knn,
        "knn_resnet": replace(knn, feature="pool"),
        "linear_probe": probe,
        "linear_probe_resnet": replace(probe, feature="pool"),
    }


def linear(epochs: int, warmup_epochs: int, effective_batch: int, base_lr: float) -> Training:
    """LARS without decay, as MAE's linear probing."""
    return Training(
        epochs=epochs,
        warmup_epochs=warmup_epochs,
        effective_batch=effective_batch,
        base_lr=base_lr,
        optimizer="lars",
        weight_decay=0.0,
    )
