"""The whole matrix of the CIM paper: every method and network of its tables, through every protocol."""

from __future__ import annotations

from dataclasses import replace

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.evals.adversarial import Adversarial
from cim_bench.evals.corruptions.protocol import Corruptions
from cim_bench.evals.knn import KNN
from cim_bench.evals.linear_probe import LinearProbe
from cim_bench.recipes.finetuning import (
    finetune_cim_vit_base,
    finetune_cim_vit_small,
    finetune_rsb_a2,
    finetune_rsb_a3,
    finetune_scratch_vit_base,
)
from cim_bench.recipes.segmentation import segmentation_cim
from cim_bench.recipes.shifts import imagenet_a, imagenet_r, imagenet_sketch
from cim_bench.spec import Arch, Data, FromCheckpoint

VIT_S, VIT_B, R50 = "vit_small_patch16_224", "vit_base_patch16_224", "resnet50"
FAIR = "https://dl.fbaipublicfiles.com/"
ZOO = "https://mmpretrain.readthedocs.io, its model zoo"
OURS = "train it: cim-bench pretrain "


def _given(method: str, arch: str, published: str, pretrain_data: str = "") -> FromCheckpoint:
    return FromCheckpoint(kind="backbone", method=method, arch=arch, published=published, pretrain_data=pretrain_data)


def _vits() -> dict[str, RandomInit | FromCheckpoint]:
    """Rows for ViT-S and ViT-B, in the order of the paper."""
    beit = "https://github.com/addf400/files/releases, beit_base_patch16_224_pt22k.pth (pre-trained on IN-22K)"
    deit = f"{FAIR}deit/deit_base_patch16_224-b5f2ef4d.pth, or timm:deit_base_patch16_224"
    cim = "https://github.com/weivision/Correlational-Image-Modeling, README; or "
    return {
        "Scratch-ViT-S": RandomInit(arch=Arch(name=VIT_S)),
        "Scratch-ViT-B": RandomInit(arch=Arch(name=VIT_B)),
        "Supervised-ViT-B": replace(_given("Supervised", VIT_B, deit, "IN-1K w/ labels"), drop_head=True),
        "MP3-ViT-B": _given("MP3", VIT_B, ""),
        "MoCo-v3-ViT-S": _given("MoCo v3", VIT_S, f"{FAIR}moco-v3/vit-s-300ep/vit-s-300ep.pth.tar"),
        "MoCo-v3-ViT-B": _given("MoCo v3", VIT_B, f"{FAIR}moco-v3/vit-b-300ep/vit-b-300ep.pth.tar"),
        "DINO-ViT-S": _given("DINO", VIT_S, f"{FAIR}dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth"),
        "DINO-ViT-B": _given("DINO", VIT_B, f"{FAIR}dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"),
        "BEiT-ViT-S": _given("BEiT", "", ""),
        "BEiT-ViT-B": replace(  # its file does not say its normalisation; its README does, for these weights
            _given("BEiT", "beit_base_patch16_224", beit, "IN-22K+DALL-E"), normalisation="inception"
        ),
        "SimMIM-ViT-S": _given("SimMIM", VIT_S, f"{OURS}simmim_vit_small_plain"),
        "SimMIM-ViT-B": _given("SimMIM", "beit_base_patch16_224", "https://github.com/microsoft/SimMIM, README"),
        "MAE-ViT-S": _given("MAE", VIT_S, f"{OURS}mae_vit_small"),
        "MAE-ViT-B": _given("MAE", VIT_B, f"{FAIR}mae/pretrain/mae_pretrain_vit_base.pth"),
        "CIM-ViT-S": _given("CIM", VIT_S, f"{OURS}cim_vit_small"),
        "CIM-ViT-B": _given("CIM", VIT_B, f"{cim}{OURS}cim_vit_base"),
    }


def _resnets() -> dict[str, RandomInit | FromCheckpoint]:
    """Rows for ResNet-50; random weights with RSB's recipes are RSB itself."""
    moco = f"{FAIR}moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar"
    simsiam = f"{FAIR}simsiam/models/100ep-256bs/pretrain/checkpoint_0099.pth.tar"
    return {
        "RSB-R50": RandomInit(arch=Arch(name=R50)),
        "SimSiam-R50": _given("SimSiam", R50, simsiam),
        "MoCo-v2-R50": _given("MoCo v2", R50, moco),
        "SimCLR-R50": _given("SimCLR", R50, ZOO),
        "BYOL-R50": _given("BYOL", R50, ZOO),
        "SwAV-R50": _given("SwAV", R50, f"{FAIR}deepcluster/swav_800ep_pretrain.pth.tar"),
        "SimMIM-R50": _given("SimMIM", R50, f"{OURS}simmim_resnet50"),
        "CIM-R50": _given("CIM", R50, f"{OURS}cim_resnet50"),
    }


def paper() -> Benchmark:
    """All rows and columns of the paper; a subject without a checkpoint shows its published figures and dashes.

    Every pre-trained ViT is fine-tuned by CIM's recipe, so that one column holds one protocol; the published figures
    come from each method's own. Robustness rests on that classifier, for ResNet-50 on the one of RSB A3.

    Command: ``cim-bench run paper --plan`` says what is missing; then ``cim-bench run paper --data.root IMAGENET
    --subjects.MAE-ViT-B.path mae_pretrain_vit_base.pth ...``. Hardware: 8 GPUs for a night a fine-tuning.
    Expected: the published column.
    """
    vits, resnets = _vits(), _resnets()
    scratch = tuple(name for name in vits if name.startswith("Scratch"))
    small, base = (
        tuple(name for name in vits if name.endswith(size) and name not in scratch) for size in ("ViT-S", "ViT-B")
    )
    evaluators: dict[str, Evaluator] = {
        "knn": KNN(),
        "knn_r50": KNN(feature="pool"),
        "linear_probe": LinearProbe(),
        "linear_probe_r50": LinearProbe(feature="pool"),
        "finetune_vit_small": finetune_cim_vit_small(),
        "finetune_vit_base": finetune_cim_vit_base(),
        "finetune_scratch": finetune_scratch_vit_base(),
        "finetune_rsb_a3": finetune_rsb_a3(),
        "finetune_rsb_a2": finetune_rsb_a2(),
        "adversarial": Adversarial(),
        "corruptions": Corruptions(),
        "segmentation": segmentation_cim(),
        "imagenet_a": imagenet_a(),
        "imagenet_r": imagenet_r(),
        "imagenet_sketch": imagenet_sketch(),
    }
    only = {
        "segmentation": (*base, "Scratch-ViT-B"),
        "knn": tuple(vits),
        "knn_r50": tuple(resnets),
        "linear_probe": tuple(vits),
        "linear_probe_r50": tuple(resnets),
        "finetune_vit_small": small,
        "finetune_vit_base": base,
        "finetune_scratch": scratch,
        "finetune_rsb_a3": tuple(resnets),
        "finetune_rsb_a2": tuple(resnets),
    }
    return Benchmark(
        name="paper", subjects={**vits, **resnets}, evaluators=evaluators, only=only, data=Data(), report="matrix"
    )
