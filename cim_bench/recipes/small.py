"""The paper's matrix in miniature: small networks, pretexts and probes that `demo` and `cifar10` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cim_bench.benchmark import Pretraining, RandomInit
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.contracts.pretext import Pretext
from cim_bench.evals.knn import KNN
from cim_bench.evals.linear_probe import LinearProbe
from cim_bench.pretrain.cim.method import CIM
from cim_bench.pretrain.mae import MAE
from cim_bench.pretrain.simmim import SimMIM
from cim_bench.spec import OF_BENCHMARK, Arch, Data, FromCheckpoint, Machine, Training

Options = dict[str, int | float | str | tuple[int, ...]]
VITS, RESNETS = ("*-ViT",), ("Scratch-ResNet", "SimMIM-ResNet", "CIM-ResNet")
TUNED = (*VITS, *RESNETS)
FROZEN = ("Random-ResNet", *RESNETS[1:])  # a random ResNet gives features with statistics of images
ONLY = {"knn": VITS, "knn_resnet": FROZEN, "linear_probe": VITS, "linear_probe_resnet": FROZEN}


def vit(image_size: int, *, cells: int = 8, depth: int = 4) -> Arch:
    """A ViT of 128 channels that sees `cells` by `cells` patches."""
    options: Options = {"patch_size": image_size // cells, "embed_dim": 128, "depth": depth, "num_heads": 4}
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


def training(epochs: int, warmup_epochs: float, *, base_lr: float = 2e-3, beta2: float = 0.95) -> Training:
    """AdamW in batches of 64, along a half-cosine."""
    return Training(
        epochs=epochs,
        warmup_epochs=warmup_epochs,
        effective_batch=64,
        base_lr=base_lr,
        betas=(0.9, beta2),
        weight_decay=0.05,
        clip_grad=1.0,
    )


@dataclass(frozen=True)
class Recipe:
    """A pretext and its training."""

    pretext: Pretext
    training: Training


Rows = dict[str, Pretraining | FromCheckpoint | RandomInit]


def vit_subjects(machine: Machine, vit: Arch, recipes: Mapping[str, Recipe], data: Data = OF_BENCHMARK) -> Rows:
    """Scratch, which starts as CIM does, and some methods on a ViT.

    Args:
        machine: Of all pre-trainings.
        vit: The network.
        recipes: By the method's name; CIM is one.
        data: What they learn from.
    """
    trained = {
        f"{name}-ViT": Pretraining(
            pretext=recipe.pretext, arch=vit, data=data, machine=machine, training=recipe.training
        )
        for name, recipe in recipes.items()
    }
    return {"Scratch-ViT": RandomInit(arch=vit, pretext=recipes["CIM"].pretext), **trained}


def resnet_subjects(machine: Machine, resnet: Arch, recipes: Mapping[str, Recipe]) -> Rows:
    """Scratch, Random and some methods on a ResNet, of which CIM exports the EMA encoder; arguments as above.

    Scratch-ResNet is what fine-tuning starts from. Random-ResNet is the same network as a frozen one is compared with.
    """
    trained = {
        f"{name}-ResNet": Pretraining(
            pretext=recipe.pretext,
            arch=resnet,
            data=OF_BENCHMARK,
            machine=machine,
            training=recipe.training,
            export="ema" if isinstance(recipe.pretext, CIM) else "online",
        )
        for name, recipe in recipes.items()
    }
    fresh = {"Scratch-ResNet": RandomInit(arch=resnet), "Random-ResNet": RandomInit(arch=resnet, calibrate=1024)}
    return {**fresh, **trained}


def probes(linear: Training, *, resnet: bool = False) -> dict[str, Evaluator]:
    """k-NN and linear probing, on the mean of a ViT's patch tokens or a ResNet's pooled map."""
    feature: Literal["mean_patch", "pool"] = "pool" if resnet else "mean_patch"
    suffix = "_resnet" if resnet else ""
    return {
        f"knn{suffix}": KNN(feature=feature, crop_pct=1.0),
        f"linear_probe{suffix}": LinearProbe(feature=feature, augment="none", crop_pct=1.0, training=linear),
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
