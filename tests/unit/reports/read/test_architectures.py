"""Which backbone of the paper an architecture is."""

from __future__ import annotations

import pytest

from cim_bench.reports.read.architectures import family, is_resnet
from cim_bench.spec import Arch


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("vit_small", "vit_small"),  # as published
        ("resnet50", "resnet50"),
        ("vit_small_patch16_224@224", "vit_small"),
        ("vit_base_patch16_224.mae@224", "vit_base"),
        ("beit_base_patch16_224@224,init_values=0.1,use_abs_pos_emb=False", "vit_base"),
        ("vit_small_patch16_224@224,num_heads=12", "vit_small"),  # MoCo v3's ViT-S
        ("vit_base_patch16_224@224,depth=12,embed_dim=768", "vit_base"),
        ("beit_base_patch16_224@224,depth=12,embed_dim=384,num_heads=6,use_abs_pos_emb=False", "vit_small"),
        ("resnet50@224", "resnet50"),
        ("resnet50.a1_in1k@160", "resnet50"),
        ("vit_small_patch16_224@64,depth=4,embed_dim=128,num_heads=4,patch_size=8", "other"),  # the demo's
        ("vit_small_patch8_224@224", "other"),
        ("vit_base_patch14_dinov2@224", "other"),
        ("vit_base_patch16_clip_224@224", "other"),
        ("vit_large_patch16_224@224", "other"),
        ("resnet10t@64", "other"),
        ("resnet50d@224", "other"),
        ("wide_resnet50_2@224", "other"),
        ("unknown", "other"),
    ],
)
def test_family(arch: str, expected: str) -> None:
    assert family(arch) == expected


def test_the_default_architecture_of_recipes_is_published() -> None:
    assert family(str(Arch())) == "vit_base"
    assert family(str(Arch(options={"depth": 12}))) == "vit_base"
    assert family(str(Arch(options={"depth": 11}))) == "other"


def test_resnets_and_vits() -> None:
    resnets = ("resnet50", "resnet10t@64,width=2", "resnext50_32x4d@224", "wide_resnet50_2@224", "seresnet50@224")
    assert all(is_resnet(arch) for arch in resnets)
    assert not any(is_resnet(arch) for arch in ("vit_small", "beit_base_patch16_224@224,stem=resnet", "unknown"))
