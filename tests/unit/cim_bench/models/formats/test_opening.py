"""Opening public checkpoints: golden numbers of the public code, reading files safely, and every refusal."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import types
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from cim_bench.models.backbone import create_net, load_backbone
from cim_bench.models.checkpoint import Meta, save_checkpoint
from cim_bench.models.formats.measure import RequestedArch, parse_arch
from cim_bench.models.formats.opening import LoadReport, checkpoint_kind, open_checkpoint
from cim_bench.models.positions import interpolate_positions, sincos_positions
from cim_bench.spec import Arch, FromCheckpoint
from tests.golden.weights import filled, images, thin

from .public_files import FILES, TINY, State, script, under

BEIT = Arch(
    name="beit_base_patch16_224",
    image_size=32,
    options={"init_values": 0.1, "use_abs_pos_emb": False, "global_pool": "avg", "depth": 2},
)
GOLDEN = json.loads((Path(__file__).parents[4] / "golden" / "formats.json").read_text())


@pytest.fixture
def vit() -> State:
    return dict(FILES["DINO ViT encoder"].build(0).state_dict())


def dino(path: Path, **more: Any) -> FromCheckpoint:
    return FromCheckpoint(path=str(path), method="DINO", arch=f"vit_tiny_patch16_224{TINY}", **more)


def small(path: Path, **more: Any) -> FromCheckpoint:
    """A ViT-Ti/16 of real size, which needs no architecture."""
    return FromCheckpoint(path=str(path), method="DINO", **more)


def message(source: FromCheckpoint) -> str:
    with pytest.raises(ValueError, match=r"\w") as error:
        open_checkpoint(source)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", GOLDEN["formats"])
@torch.no_grad()
def test_features_are_the_golden_ones_of_the_public_code(name: str, tmp_path: Path) -> None:
    case = GOLDEN["formats"][name]
    if "dinov3" in case["arch"] and not timm.list_models("*dinov3*"):
        pytest.skip("timm has no DINOv3 before 1.0.20")
    packed = filled(case["file"], case["wrap"])
    if name in FILES and (table := FILES[name].table) is not None:
        packed["model"]["pos_embed"] = table(48, 4)
    if name == "CIM encoder":
        packed["model"]["patch_embed.proj.bias"] = torch.zeros(48)
    for state in (packed, packed.get("teacher", {})):
        for key in [key for key in state if key.endswith("rope_embed.periods")]:
            state[key] = 100.0 ** (torch.arange(4) / 4)
    args = case.get("args", {"lr": 1e-3} if "model" in packed and case["method"] != "SimMIM" else {})
    torch.save(packed | ({"args": argparse.Namespace(**args)} if args else {}), tmp_path / "x.pth")
    part = f"#{case['part']}" if case["part"] else ""
    checkpoint, report = open_checkpoint(
        FromCheckpoint(
            path=f"{tmp_path / 'x.pth'}{part}",
            method=case["method"],
            arch=case["arch"],
            image_size=case["image_size"],
            normalisation=case.get("normalisation", ""),
        )
    )
    assert report.format == case.get("format", name)
    model = load_backbone(checkpoint, what=name)
    for kind, wanted in case["outputs"].items():
        ours = (
            model(images(case["image_size"])) if kind == "logits" else model.feature(images(case["image_size"]), kind)
        )
        torch.testing.assert_close(thin(ours), torch.tensor(wanted), rtol=0, atol=GOLDEN["tolerance"])


def test_the_architecture_is_told_from_real_sizes(tmp_path: Path) -> None:
    for name, words in (
        ("vit_tiny_patch16_224", "ViT-T/16"),
        ("vit_small_patch8_224", "ViT-S/8"),
        ("resnet34", "ResNet-34"),
    ):
        state = {
            k: v.reshape(-1)[0].expand(v.shape)
            for k, v in create_net(Arch(name=name), num_classes=0).state_dict().items()
        }
        torch.save(state, tmp_path / f"{name}.pth")
        checkpoint, _ = open_checkpoint(small(tmp_path / f"{name}.pth"))
        assert checkpoint.meta.arch == Arch(name=name, image_size=224)
        assert f"it is a {words}, vit_base_patch16_224 was asked for; ask for {name}, or for none" in message(
            small(tmp_path / f"{name}.pth", arch="vit_base_patch16_224")
        )


def test_moco_v3_small_has_twelve_heads(tmp_path: Path) -> None:
    state = create_net(Arch(name="vit_small_patch16_224"), num_classes=0).state_dict()
    state = {k: v.flatten()[:1].expand(v.shape) for k, v in state.items()}
    torch.save({"state_dict": under("module.base_encoder.", state), "epoch": 300}, tmp_path / "vit-s-300ep.pth.tar")
    checkpoint, _ = open_checkpoint(FromCheckpoint(path=str(tmp_path / "vit-s-300ep.pth.tar")))
    assert checkpoint.meta.arch == Arch(name="vit_small_patch16_224", options={"num_heads": 12})
    assert checkpoint.meta.epochs == 300
    assert load_backbone(checkpoint, what="it").net.blocks[0].attn.num_heads == 12


def test_small_beits_take_their_heads_from_their_width(tmp_path: Path) -> None:
    arch = Arch(name="beit_base_patch16_224", options={"embed_dim": 384, "num_heads": 6, "global_pool": "token"})
    state = {k: v.flatten()[:1].expand(v.shape) for k, v in create_net(arch, num_classes=0).state_dict().items()}
    state["rel_pos_bias.relative_position_bias_table"] = state.pop("blocks.0.attn.relative_position_bias_table")
    state = {key: value for key, value in state.items() if "attn.relative_position_bias_table" not in key}
    packed = state | {"mask_token": torch.zeros(1, 1, 384), "lm_head.weight": torch.zeros(8192, 384)}
    torch.save({"model": packed}, tmp_path / "beit_small.pth")
    source = FromCheckpoint(path=str(tmp_path / "beit_small.pth"), method="BEiT", normalisation="inception")
    found = open_checkpoint(source)[0].meta.arch
    assert found.options["num_heads"] == 6
    assert found.options["use_shared_rel_pos_bias"]
    assert not found.options["use_rel_pos_bias"]


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("", RequestedArch()),
        ("resnet50", RequestedArch(name="resnet50")),
        ("resnet50.a1_in1k@160", RequestedArch(name="resnet50", tag="a1_in1k", image_size=160)),
        (
            "resnet10t@32,channels=16x32x64x128",
            RequestedArch(name="resnet10t", image_size=32, options={"channels": (16, 32, 64, 128)}),
        ),
        (str(BEIT), RequestedArch(name=BEIT.name, image_size=32, options=BEIT.options)),
    ],
)
def test_architectures_are_read_as_they_are_printed(text: str, asked: RequestedArch) -> None:
    assert parse_arch(text) == asked


@pytest.mark.parametrize("text", ["vit base", "vit@big", "vit@32,depth", "vit@32,depth=", "vit,=3"])
def test_an_unreadable_architecture_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="write "):
        parse_arch(text)


class TestResampling:
    def test_dino_positions_are_brought_to_another_grid_as_dino_does(self, vit: State, tmp_path: Path) -> None:
        torch.save(vit, tmp_path / "x.pth")
        checkpoint, report = open_checkpoint(dino(tmp_path / "x.pth", image_size=48))
        torch.testing.assert_close(checkpoint.state["pos_embed"], interpolate_positions(vit["pos_embed"], 6, "offset"))
        assert report.resampled == ("pos_embed",)
        assert set(report.matched) == vit.keys() - {"pos_embed"}
        assert checkpoint.meta.arch.image_size == 48
        assert load_backbone(checkpoint, what="it")(torch.rand(1, 3, 48, 48)).shape == (1, 48)

    def test_relative_tables_too(self, tmp_path: Path) -> None:
        file = FILES["SimMIM fine-tuned"]
        torch.save(file.pack(dict(file.build(0).state_dict()), {}), tmp_path / "x.pth")
        checkpoint, report = open_checkpoint(FromCheckpoint(path=str(tmp_path / "x.pth"), image_size=48, **file.ask))
        assert report.resampled == tuple(f"blocks.{i}.attn.relative_position_bias_table" for i in (0, 1))
        assert load_backbone(checkpoint, what="it")(torch.rand(1, 3, 48, 48)).shape == (1, 1000)

    def test_a_folder_of_ours_too(self, tiny_arch: Arch, tmp_path: Path) -> None:
        state = create_net(tiny_arch, num_classes=0).state_dict()
        meta = Meta(kind="backbone", method="CIM", arch=tiny_arch, epochs=3, seed=1)
        save_checkpoint(tmp_path / "own", state, meta)
        checkpoint, report = open_checkpoint(FromCheckpoint(path=str(tmp_path / "own")))
        assert set(report.matched) == state.keys()
        assert (checkpoint.meta.arch, checkpoint.meta.epochs) == (tiny_arch, 3)
        other, report = open_checkpoint(FromCheckpoint(path=str(tmp_path / "own"), image_size=64, method="cim"))
        assert report.resampled == ("pos_embed",)
        assert other.meta.hash != checkpoint.meta.hash

    def test_a_size_that_the_patch_does_not_divide(self, vit: State, tmp_path: Path) -> None:
        torch.save(vit, tmp_path / "x.pth")
        assert "image size 50 does not divide by its patch of 8" in message(dino(tmp_path / "x.pth", image_size=50))


class TestIdentity:
    def test_epochs_come_from_the_file_then_from_the_user(self, vit: State, tmp_path: Path) -> None:
        args = argparse.Namespace(epochs=400)
        for number, (entries, epochs) in enumerate((({"epoch": 9, "args": args}, 9), ({"args": args}, 400), ({}, 20))):
            torch.save({"model": vit, **entries}, tmp_path / f"{number}.pth")
            assert open_checkpoint(dino(tmp_path / f"{number}.pth", epochs=20))[0].meta.epochs == epochs

    def test_epochs_of_fine_tuning_are_not_those_of_pre_training(self, tmp_path: Path) -> None:
        file = FILES["MAE fine-tuned"]
        torch.save(script(dict(file.build(0).state_dict())), tmp_path / "x.pth")
        assert open_checkpoint(FromCheckpoint(path=str(tmp_path / "x.pth"), **file.ask))[0].meta.epochs is None

    def test_timm_weights_without_a_tag_have_no_known_normalisation(self, vit: State, tmp_path: Path) -> None:
        torch.save(vit, tmp_path / "x.pth")
        source = replace(dino(tmp_path / "x.pth"), method="AugReg", arch=f"vit_base_patch16_224{TINY}")
        assert "--arch vit_base_patch16_224.augreg" in message(source)
        unknown = replace(source, arch=f"vit_base_patch16_224.typo{TINY}")
        assert "timm knows no weights vit_base_patch16_224.typo; it has augreg" in message(unknown)

    def test_a_head_of_other_classes_is_not_guessed(self, tmp_path: Path) -> None:
        state = timm.create_model("resnet18", num_classes=10).state_dict()
        torch.save(state, tmp_path / "x.pth")
        assert "its fc.weight has 10 classes that the file does not name" in message(
            FromCheckpoint(path=str(tmp_path / "x.pth"), method="RSB")
        )

    def test_old_torchvision_files_lack_counters(self, tmp_path: Path) -> None:
        state = timm.create_model("resnet18").state_dict()
        less = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        torch.save(less, tmp_path / "x.pth")
        checkpoint, report = open_checkpoint(FromCheckpoint(path=str(tmp_path / "x.pth"), method="supervised"))
        assert len(report.missing) == 20
        load_backbone(checkpoint, what="it")

    def test_half_precision_is_converted_and_said(self, vit: State, tmp_path: Path) -> None:
        torch.save({k: v.half() for k, v in vit.items()}, tmp_path / "x.pth")
        checkpoint, report = open_checkpoint(dino(tmp_path / "x.pth"))
        assert {v.dtype for v in checkpoint.state.values()} == {torch.float32}
        assert report.notes == ("weights are stored as float16 and were converted to float32",)

    def test_safetensors_and_the_oldest_torch_format(self, vit: State, tmp_path: Path) -> None:
        save_file(vit, tmp_path / "x.safetensors")
        torch.save(vit, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
        torch.save(vit, tmp_path / "y.bin")
        hashes = {open_checkpoint(dino(tmp_path / name))[0].meta.hash for name in ("x.safetensors", "x.pth", "y.bin")}
        assert len(hashes) == 1

    def test_kinds_for_planning(self, vit: State, tiny_arch: Arch, tmp_path: Path) -> None:
        torch.save(vit, tmp_path / "x.pth")
        torch.save(FILES["BEiT fine-tuned"].build(0).state_dict(), tmp_path / "c.pth")
        meta = Meta(kind="backbone", method="CIM", arch=tiny_arch, epochs=3, seed=1)
        save_checkpoint(tmp_path / "own", create_net(tiny_arch, num_classes=0).state_dict(), meta)
        kinds = {
            name: checkpoint_kind(FromCheckpoint(path=str(tmp_path / name)))
            for name in ("x.pth", "c.pth", "own", "no.pth")
        }
        assert kinds == {"x.pth": "backbone", "c.pth": "classifier", "own": "backbone", "no.pth": "missing"}
        assert checkpoint_kind(FromCheckpoint()) == "missing"


class TestRefusals:
    def test_every_key_prefixed(self, vit: State, tmp_path: Path) -> None:
        torch.save({"model": under("module.model.", vit)}, tmp_path / "x.pth")
        text = message(dino(tmp_path / "x.pth"))
        assert "every key of" in text
        assert "starts with 'module.model.'; without it the file would be timm ViT encoder (whatever" in text

    def test_an_unknown_network_names_what_is_near(self, vit: State, tmp_path: Path) -> None:
        torch.save(
            {"model": {k.replace("norm1", "first"): v for k, v in vit.items() if k != "pos_embed"}}, tmp_path / "x.pth"
        )
        assert "is no known format (keys " in message(dino(tmp_path / "x.pth"))
        assert "encoder, but it has no pos_embed" in message(dino(tmp_path / "x.pth"))

    def test_a_student_without_its_teacher(self, vit: State, tmp_path: Path) -> None:
        packed = FILES["DINO ViT"].pack(vit, vit)
        student = packed.pop("teacher") and packed
        torch.save(student, tmp_path / "student.pth")
        assert "DINO's student without its teacher" in message(dino(tmp_path / "student.pth"))
        torch.save(student["student"], tmp_path / "bare.pth")
        assert "one network out of a DINO checkpoint" in message(dino(tmp_path / "bare.pth"))

    def test_a_part_that_is_not_there(self, vit: State, tmp_path: Path) -> None:
        torch.save(vit, tmp_path / "x.pth")
        text = message(dino(Path(f"{tmp_path / 'x.pth'}#ema")))
        assert "has no part 'ema': it is" in text
        assert text.endswith("open it without #ema")

    def test_positions_that_were_never_learned_are_not_dinos(self, vit: State, tmp_path: Path) -> None:
        torch.save(vit | {"pos_embed": sincos_positions(48, 4)}, tmp_path / "x.pth")
        assert "is MAE encoder, DINO was asked for" in message(dino(tmp_path / "x.pth"))

    def test_a_vit_that_shapes_do_not_name(self, vit: State, tmp_path: Path) -> None:
        torch.save(vit, tmp_path / "x.pth")
        assert "a ViT of width 48, depth 2 and patch 8, which is no known architecture; name it like --arch" in message(
            small(tmp_path / "x.pth")
        )

    def test_not_finite(self, vit: State, tmp_path: Path) -> None:
        vit["blocks.1.mlp.fc1.weight"][3, 3] = torch.nan
        torch.save(vit, tmp_path / "x.pth")
        assert "1 of its 30 tensors hold NaN or infinity, such as blocks.1.mlp.fc1.weight" in message(
            dino(tmp_path / "x.pth")
        )

    def test_a_folder_of_another_method_or_architecture(self, tiny_arch: Arch, tmp_path: Path) -> None:
        meta = Meta(kind="backbone", method="CIM", arch=tiny_arch, epochs=3, seed=1)
        save_checkpoint(tmp_path / "own", create_net(tiny_arch, num_classes=0).state_dict(), meta)
        assert "was trained by CIM, MAE was asked for" in message(
            FromCheckpoint(path=str(tmp_path / "own"), method="MAE")
        )
        other = FromCheckpoint(path=str(tmp_path / "own"), arch="resnet50")
        assert "resnet50 was asked for" in message(other)

    def test_no_file(self, tmp_path: Path) -> None:
        assert "there is no checkpoint file" in message(dino(tmp_path / "x.pth"))

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    @pytest.mark.parametrize("suffix", ["pth", "old.pth", "safetensors"])
    def test_a_truncated_file(self, suffix: str, share: float, vit: State, tmp_path: Path) -> None:
        path = tmp_path / f"x.{suffix}"
        if suffix == "safetensors":
            save_file(vit, path)
        else:
            torch.save(vit, path, _use_new_zipfile_serialization=suffix == "pth")
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        assert f"cannot read {path}" in message(dino(path))

    @pytest.mark.parametrize("entries", [{"epoch": 3}, {"model": {}}, {"model": {"a": 1}}])
    def test_no_state_dict(self, entries: dict[str, Any], tmp_path: Path) -> None:
        torch.save(entries, tmp_path / "x.pth")
        assert "has no state dict" in message(dino(tmp_path / "x.pth"))

    def test_a_list(self, tmp_path: Path) -> None:
        torch.save([torch.zeros(2)], tmp_path / "x.pth")
        assert "holds a list, not a state dict" in message(dino(tmp_path / "x.pth"))


class Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return (os.system, (self.command,))


class TestPickles:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_nothing_in_a_malicious_file_runs(self, zipped: bool, vit: State, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        packed = {"model": vit, "args": Malicious(f"touch {victim}")}
        torch.save(packed, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        text = message(dino(tmp_path / "x.pth"))
        assert "it wants to make or call posix.system, and a pickle can run any code" in text
        assert "pass --allow-pickle if you trust its author" in text
        with pytest.raises(ValueError, match="any code"):
            checkpoint_kind(dino(tmp_path / "x.pth"))
        assert not victim.exists()

    def test_allow_pickle_is_the_only_way_past_and_warns(
        self, vit: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        torch.save({"model": vit, "config": Path("x")}, tmp_path / "x.pth")
        assert "more than tensors" in message(dino(tmp_path / "x.pth"))
        assert open_checkpoint(dino(tmp_path / "x.pth", allow_pickle=True))[0].meta.method == "DINO"
        warning = capsys.readouterr().err
        assert warning.count("\n") == 1
        assert "can run any code" in warning

    def test_a_whole_pickled_model(self, tmp_path: Path) -> None:
        torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "x.pth")
        assert "torch.nn.modules.container.Sequential" in message(dino(tmp_path / "x.pth"))
        assert "is a whole pickled Sequential" in message(dino(tmp_path / "x.pth", allow_pickle=True))

    def test_what_public_scripts_save_beside_tensors_needs_no_permission(
        self, vit: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        yacs = types.ModuleType("yacs.config")  # SimMIM's settings; the package is not installed here
        yacs.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})  # type: ignore[attr-defined]
        for name, module in (("yacs", types.ModuleType("yacs")), ("yacs.config", yacs)):
            monkeypatch.setitem(sys.modules, name, module)
        node = yacs.CfgNode({"DATA": yacs.CfgNode({"IMG_SIZE": 224})})  # type: ignore[attr-defined]
        node.__dict__["__immutable__"] = True
        entries = {
            "args": argparse.Namespace(lr=1e-3, betas=(0.9, 0.95), device="cuda"),
            "best_acc1": torch.tensor(3.0),
            "max_accuracy": np.float64(0.5),
            "loss": np.float32(0.5),
            "config": node,
            "milestones": Counter({700: 1}),
        }
        torch.save({"model": vit, **entries}, tmp_path / "x.pth")
        monkeypatch.undo()
        assert isinstance(open_checkpoint(dino(tmp_path / "x.pth"))[1], LoadReport)


class TestHub:
    NAME = "vit_tiny_patch16_224"

    @pytest.fixture
    def offline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The Hub's client without network, and an empty cache."""
        constants = pytest.importorskip("huggingface_hub").constants
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        return tmp_path / "hub"

    def cached(self, hub: Path, tag: str, num_classes: int) -> nn.Module:
        """Put weights into the cache as a download would."""
        torch.manual_seed(3)
        net: nn.Module = timm.create_model(self.NAME, num_classes=num_classes)
        folder = hub / f"models--timm--{self.NAME}.{tag}"
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        save_file(net.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")
        return net

    def test_without_network_or_cache_there_are_no_weights(self, offline: Path) -> None:
        text = message(FromCheckpoint(path="timm:vit_base_patch16_224.mae"))
        assert "cannot get timm:vit_base_patch16_224.mae" in text
        assert "give its path with --arch vit_base_patch16_224.mae" in text

    @torch.no_grad()
    def test_a_cached_classifier(self, offline: Path) -> None:
        net = self.cached(offline, "augreg_in21k_ft_in1k", 1000).eval()
        source = FromCheckpoint(path=f"timm:{self.NAME}.augreg_in21k_ft_in1k")
        assert checkpoint_kind(source) == "classifier"
        checkpoint, report = open_checkpoint(source)
        assert report.unexpected == ()
        assert checkpoint.meta.mean == (0.5, 0.5, 0.5)
        assert checkpoint.meta.method == "timm augreg_in21k_ft_in1k"
        pixels = torch.rand(2, 3, 224, 224)
        torch.testing.assert_close(load_backbone(checkpoint, what="it")(pixels), net((pixels - 0.5) / 0.5))

    def test_a_cached_backbone_loses_its_other_head_and_says_so(self, offline: Path) -> None:
        self.cached(offline, "augreg_in21k", 21843)
        source = FromCheckpoint(path=f"timm:{self.NAME}.augreg_in21k", image_size=64, method="AugReg", epochs=300)
        assert checkpoint_kind(source) == "backbone"
        checkpoint, report = open_checkpoint(source)
        assert report.unexpected == ("head.bias", "head.weight")
        assert report.resampled == ("pos_embed",)
        assert (checkpoint.meta.method, checkpoint.meta.epochs) == ("AugReg", 300)
        assert "head.weight" not in checkpoint.state

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("vit_base_patch16_224.maee", "vit_base_patch16_224.mae"),
            ("resnet5", "resnet50"),
            ("resnet18.xyz", "resnet18."),
        ],
    )
    def test_unknown_weights_name_near_ones(self, name: str, near: str) -> None:
        text = message(FromCheckpoint(path=f"timm:{name}"))
        assert f"timm has no weights {name!r}; near ones are " in text
        assert near in text

    def test_a_network_without_a_format_of_ours_is_not_sent_to_a_file(self, offline: Path) -> None:
        text = message(FromCheckpoint(path="timm:efficientnet_lite0.ra_in1k"))
        assert "cache from another machine" in text
        assert "--arch" not in text

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (SafetensorError("incomplete metadata"), "its download was cut; delete its folder models--timm--vit_tiny"),
            (HfHubHTTPError.__bases__[0]("connection reset"), "(connection reset): connect to the network once"),
        ],
    )
    def test_what_a_download_can_raise_is_one_sentence(
        self, error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logger = logging.getLogger("huggingface_hub")
        before, during = logger.level, []

        def fail(*args: object, **options: object) -> None:
            during.append(logger.level)
            raise error

        monkeypatch.setattr(timm, "create_model", fail)
        assert words in message(FromCheckpoint(path=f"timm:{self.NAME}.augreg_in21k"))
        assert (during, logger.level) == ([logging.ERROR], before)

    def test_sizes_that_a_network_cannot_take(self, monkeypatch: pytest.MonkeyPatch) -> None:
        create = timm.create_model

        def untrained(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
            return create(name.partition(".")[0], **options)

        monkeypatch.setattr(timm, "create_model", untrained)
        fixed = FromCheckpoint(path="timm:swin_tiny_patch4_window7_224.ms_in1k", image_size=112)
        assert "takes images of 224 pixels only, not of 112" in message(fixed)
        odd = FromCheckpoint(path=f"timm:{self.NAME}.augreg_in21k", image_size=100)
        assert f"{odd.path} is timm's, but image size 100 does not divide by its patch of 16" in message(odd)

    def test_weights_that_are_not_finite(self, offline: Path) -> None:
        self.cached(offline, "augreg_in21k", 21843)
        file = next(offline.rglob("model.safetensors"))
        state = load_file(file)
        state["norm.bias"][0] = torch.nan
        save_file(state, file)
        assert "tensors hold NaN or infinity, such as norm.bias" in message(
            FromCheckpoint(path=f"timm:{self.NAME}.augreg_in21k")
        )

    def test_other_methods_and_architectures(self) -> None:
        assert "is MAE, DINO was asked for" in message(
            FromCheckpoint(path="timm:vit_base_patch16_224.mae", method="DINO")
        )
        source = FromCheckpoint(path="timm:vit_base_patch16_224.mae", arch="vit_small_patch16_224")
        assert "vit_small_patch16_224 was asked for" in message(source)
        for asked in ("vit_base_patch16_224.dino", "vit_base_patch16_224,num_heads=6"):
            text = message(replace(source, arch=asked))
            assert f"is vit_base_patch16_224.mae as timm builds it, {asked} was asked for" in text
        assert "is a pre-trained backbone, a fine-tuned classifier was asked for; fine-tune it first" in message(
            FromCheckpoint(path="timm:vit_base_patch16_224.mae", kind="classifier")
        )


class TestDropHead:
    """The backbone of a classifier, as rows of supervised training take it."""

    def source(self, folder: Path, **changes: Any) -> FromCheckpoint:
        torch.manual_seed(0)
        self.net = timm.create_model("deit_tiny_patch16_224").eval()
        torch.save({"model": self.net.state_dict()}, folder / "deit.pth")
        asked = {"arch": "deit_tiny_patch16_224", "method": "Supervised", "normalisation": "imagenet", **changes}
        return FromCheckpoint(path=str(folder / "deit.pth"), **asked)

    def test_it_is_a_backbone_with_the_classifiers_features(self, tmp_path: Path) -> None:
        source = self.source(tmp_path, drop_head=True)
        checkpoint, _ = open_checkpoint(source)
        assert (checkpoint.meta.kind, checkpoint.meta.classes, checkpoint_kind(source)) == ("backbone", (), "backbone")
        model, images = load_backbone(checkpoint, what="x"), torch.rand(1, 3, 224, 224)
        with torch.no_grad():
            expected = self.net.forward_features(model.normalize(images))
            assert model.feature(images, "cls").equal(expected[:, 0])

    def test_weights_with_and_without_head_are_two_identities(self, tmp_path: Path) -> None:
        with_head, _ = open_checkpoint(self.source(tmp_path))
        without, _ = open_checkpoint(self.source(tmp_path, drop_head=True))
        assert with_head.meta.identity != without.meta.identity

    def test_a_backbone_has_none(self, tmp_path: Path) -> None:
        net = timm.create_model("deit_tiny_patch16_224", num_classes=0)
        torch.save({"model": net.state_dict()}, tmp_path / "deit.pth")
        source = FromCheckpoint(path=str(tmp_path / "deit.pth"), arch="deit_tiny_patch16_224", method="Supervised",
                                drop_head=True)  # fmt: skip
        assert "has no head to drop; set drop_head to False" in message(source)

    def test_asking_for_a_classifier_as_well_is_refused(self) -> None:
        with pytest.raises(ValueError, match="of which no head would be left"):
            FromCheckpoint(path="x", kind="classifier", drop_head=True)
