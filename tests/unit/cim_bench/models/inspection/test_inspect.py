"""What `inspect` prints, and that it tells random networks from trained ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.models.checkpoint import load_checkpoint
from cim_bench.models.inspection.inspect import grouped, inspect
from cim_bench.models.inspection.randomness import Evidence, examine, features
from cim_bench.spec import Arch, FromCheckpoint
from tests.data.efficientnet_lite0 import PACKAGE, save_efficientnet_lite0, weights_file
from tests.unit.cim_bench.models.formats.public_files import FILES, part_of

SHARED_BIAS: dict[str, Any] = {
    "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "global_pool": "token", "embed_dim": 96, "num_heads": 3,
}  # fmt: skip
RANDOM = {
    "vit": Arch(name="vit_tiny_patch16_224", image_size=64),
    "tiny vit": Arch(
        name="vit_tiny_patch16_224",
        image_size=32,
        options={"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
    ),
    "beit": Arch(name="beit_base_patch16_224", image_size=64, options=SHARED_BIAS | {"depth": 4}),
    "dinov2": Arch(
        name="vit_small_patch14_dinov2", image_size=56, options={"embed_dim": 96, "num_heads": 3, "depth": 4}
    ),
    "resnet": Arch(name="resnet18", image_size=64),
    "efficientnet": Arch(name="efficientnet_lite0", image_size=64),
}

OTHER_FAMILIES = (
    Arch(
        name="swin_tiny_patch4_window7_224",
        image_size=224,
        options={"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)},
    ),
    Arch(name="crossvit_9_240", image_size=240, options={"embed_dim": (32, 64), "depth": ((1, 1, 0), (1, 2, 1))}),
)


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_network_of_any_family_is_called_random(name: str) -> None:
    torch.manual_seed(1)
    evidence = examine(Backbone(RANDOM[name]).eval())
    assert evidence.spectral_ratio < 1.1
    assert "RANDOM" in evidence.verdict


@pytest.mark.parametrize("arch", OTHER_FAMILIES, ids=lambda arch: arch.name)
def test_features_of_other_families_are_of_the_right_size(arch: Arch) -> None:
    """Channels last, and a list of branches: whatever timm pools."""
    model = Backbone(arch).eval()
    assert examine(model).verdict.startswith("this looks like a RANDOM network")
    assert features(model)[:1].shape == model(torch.rand(1, 3, arch.image_size, arch.image_size)).shape


def test_a_pretexts_own_initialisation_is_called_random() -> None:
    from cim_bench.pretrain.cim.method import CIM

    arch = RANDOM["tiny vit"]
    torch.manual_seed(1)
    model = Backbone(arch).eval()
    model.net.load_state_dict(CIM(context_size=32, exemplar_size=16).build(arch).backbone_state("online"))
    assert "RANDOM" in examine(model).verdict


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")
def test_a_trained_network_is_not(tmp_path: Path) -> None:
    file = weights_file()
    assert file is not None
    save_efficientnet_lite0(file, tmp_path / "own")
    evidence = examine(load_backbone(load_checkpoint(tmp_path / "own"), what="it"))
    assert evidence.initial_norms == ()
    assert evidence.spectral_ratio > 1.2
    assert evidence.similarity < 0.65
    assert evidence.verdict.startswith("trained: ")
    text = inspect(FromCheckpoint(path=str(tmp_path / "own")))
    assert "trained: neither weights nor features" in text


def test_one_layer_that_was_left_out_is_named() -> None:
    evidence = Evidence(
        norms=25, initial_norms=("blocks.11.norm1",), spectral_ratio=3.0, similarity=0.3, finite=True, constant=False
    )
    assert evidence.verdict.endswith("EXCEPT these norms, which are as they were initialised: blocks.11.norm1")


def test_norms_that_moved_do_not_make_a_network_trained() -> None:
    torch.manual_seed(1)
    model = Backbone(RANDOM["tiny vit"]).eval()
    with torch.no_grad():
        for name, value in model.net.state_dict().items():
            if "norm" in name:
                value.add_(0.01 * torch.rand_like(value))
    assert "LITTLE trained" in examine(model).verdict


def test_features_that_are_not_finite_or_all_the_same() -> None:
    model = Backbone(RANDOM["tiny vit"]).eval()
    with torch.no_grad():
        model.net.norm.weight.zero_()
    assert "THE SAME" in examine(model).verdict
    with torch.no_grad():
        model.net.norm.bias.fill_(torch.inf)
    assert "NOT FINITE" in examine(model).verdict


@pytest.mark.parametrize("name", ["CIM pre-trained, EMA encoder", "BEiT fine-tuned", "DINOv2 with registers"])
def test_the_report(name: str, tmp_path: Path) -> None:
    file = FILES[name]
    state, other = (dict(file.build(seed).state_dict()) for seed in (0, 1))
    torch.save(file.pack(state, other), tmp_path / "public.pth")
    text = inspect(FromCheckpoint(path=f"{tmp_path / 'public.pth'}{part_of(name)}", **file.ask))
    lines = dict(line.strip().split(maxsplit=1) for line in text.splitlines() if " " in line.strip())
    assert lines["format"].startswith(f"{name}, told by its keys")
    assert lines["activation"] == "GELU (not told by shapes; --arch NAME,act_layer=NAME)"
    assert lines["normalisation"].startswith(f"mean {file.mean[0]:g}/")
    assert lines["method"] == file.method
    assert lines["kind"] == ("classifier of 1000 classes" if "fine-tuned" in name else "backbone without head")
    assert "depth=2" in lines["architecture"]
    assert lines["heads"] == "3 (not told by shapes; --arch NAME,num_heads=N)"
    assert lines["input"] == "32 pixels"
    assert lines["epochs"] == ("8 (pre-training)" if "CIM" in name else "not told by the file (pre-training)")
    assert lines["matched"].startswith(f"{len(state)} ")
    assert lines["missing"] == "0"
    assert int(lines["unexpected"].split()[0]) > 0
    assert lines["finite"] == "yes"
    assert lines["verdict"]


def test_names_are_folded() -> None:
    names = [
        "blocks.0.attn.qkv.weight",
        "blocks.11.attn.qkv.bias",
        "layer1.0.bn1.weight",
        "layer4.2.bn1.running_mean",
        "norm.bias",
    ]
    assert grouped(names) == ["blocks.*.attn.qkv (2)", "layer*.*.bn1 (2)", "norm"]
