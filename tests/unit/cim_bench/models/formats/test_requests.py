"""What a user asks of a checkpoint against what it is: kind, part, size, epochs, tag, architecture, method."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from cim_bench.models.backbone import create_net, load_backbone
from cim_bench.models.checkpoint import Meta, save_checkpoint
from cim_bench.models.formats.checks import NO_SINCOS, SINCOS, SINCOS_MOCO3, sincos_table_of
from cim_bench.models.formats.format import readable
from cim_bench.models.formats.opening import checkpoint_kind, open_checkpoint
from cim_bench.models.positions import sincos_positions
from cim_bench.spec import Arch, FromCheckpoint

from .public_files import FILES, TINY, State, moco3_positions, under

NAME = f"vit_tiny_patch16_224{TINY}"


@pytest.fixture
def vit() -> State:
    return dict(FILES["MAE encoder"].build(0).state_dict())


@pytest.fixture
def mae(vit: State, tmp_path: Path) -> FromCheckpoint:
    torch.save({"model": vit}, tmp_path / "mae.pth")
    return FromCheckpoint(path=str(tmp_path / "mae.pth"), arch=NAME)


@pytest.fixture
def resnet() -> State:
    return {k: v.flatten()[0].expand(v.shape) for k, v in timm.create_model("resnet18").state_dict().items()}


@pytest.fixture
def own(tiny_arch: Arch, tmp_path: Path) -> FromCheckpoint:
    state = create_net(tiny_arch, num_classes=0).state_dict()
    save_checkpoint(
        tmp_path / "own", state, Meta(kind="backbone", method="CIM", arch=tiny_arch, epochs=3, seed=1), pretext=state
    )
    return FromCheckpoint(path=str(tmp_path / "own"))


def refusal(source: FromCheckpoint) -> str:
    with pytest.raises(ValueError, match=r"\w") as error:
        open_checkpoint(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def saved(path: Path, content: Any, **ask: Any) -> FromCheckpoint:
    torch.save(content, path)
    return FromCheckpoint(path=str(path), **ask)


class TestKindAndPart:
    def test_a_classifier_is_no_backbone_and_the_reverse(
        self, mae: FromCheckpoint, own: FromCheckpoint, resnet: State, tmp_path: Path
    ) -> None:
        classifier = saved(tmp_path / "r.pth", resnet, method="RSB")
        assert "r.pth is a fine-tuned classifier, a pre-trained backbone was asked for; give the checkpoint before" in (
            refusal(replace(classifier, kind="backbone"))
        )
        for source in (mae, own):
            text = refusal(replace(source, kind="classifier"))
            assert text == (
                f"{source.path} is a pre-trained backbone, a fine-tuned classifier was asked for; fine-tune it first"
            )
            assert open_checkpoint(replace(source, kind="backbone"))[0].meta.kind == "backbone"

    def test_a_folder_of_ours_has_no_parts(self, own: FromCheckpoint) -> None:
        source = replace(own, path=f"{own.path}#ema")
        assert "is a cim-bench checkpoint, which has no parts; open it without #ema" in refusal(source)
        with pytest.raises(ValueError, match="no parts"):
            checkpoint_kind(source)

    @pytest.mark.parametrize("name", ["weights.safetensors", "pretext.safetensors", "meta.json"])
    def test_a_file_of_a_folder_of_ours_means_the_folder(self, name: str, own: FromCheckpoint) -> None:
        checkpoint, report = open_checkpoint(replace(own, path=f"{own.path}/{name}"))
        assert (report.format, checkpoint.meta) == ("cim-bench", open_checkpoint(own)[0].meta)
        assert checkpoint_kind(replace(own, path=f"{own.path}/{name}")) == "backbone"


class TestSize:
    @pytest.mark.parametrize("size", [0, -8])
    def test_no_number_of_pixels(
        self, size: int, mae: FromCheckpoint, own: FromCheckpoint, resnet: State, tmp_path: Path
    ) -> None:
        for source in (mae, own, saved(tmp_path / "r.pth", resnet, method="RSB")):
            with pytest.raises(
                ValueError, match=rf"FromCheckpoint.image_size is {size}; it must be an integer, at least"
            ):
                replace(source, image_size=size)
        assert "image size 0 is no number" in refusal(replace(mae, arch=NAME.replace("@32", "@0")))

    def test_one_that_the_patch_does_not_divide(self, own: FromCheckpoint) -> None:
        assert "is a cim-bench checkpoint, but image size 36 does not divide by its patch of 8" in refusal(
            replace(own, image_size=36)
        )

    def test_residual_networks_take_any(self, resnet: State, tmp_path: Path) -> None:
        source = saved(tmp_path / "r.pth", resnet, method="RSB", image_size=100)
        assert open_checkpoint(source)[0].meta.arch.image_size == 100

    @pytest.mark.parametrize(("size", "notes"), [(None, 1), (224, 0)])
    def test_dinov2_says_at_what_size_its_figures_are(self, size: int | None, notes: int, tmp_path: Path) -> None:
        arch = Arch(name="vit_small_patch14_dinov2", image_size=518)
        state = {k: v.flatten()[:1].expand(v.shape) for k, v in create_net(arch, num_classes=0).state_dict().items()}
        source = saved(tmp_path / "d.pth", state | {"mask_token": torch.zeros(1, 384)}, image_size=size)
        checkpoint, report = open_checkpoint(source)
        assert checkpoint.meta.arch.image_size == (size or 518)
        assert len(report.notes) == notes
        assert all(note.startswith("evaluated at 518 pixels, published") for note in report.notes)


class TestEpochs:
    @pytest.mark.parametrize("epochs", [float("nan"), float("inf"), -3])
    def test_no_number_of_epochs(self, epochs: float, mae: FromCheckpoint) -> None:
        with pytest.raises(ValueError, match=r"FromCheckpoint.epochs is (nan|inf|-3); it must be a number, at least 0"):
            replace(mae, epochs=epochs)
        assert "cannot have 0 pre-training epochs" in refusal(replace(mae, epochs=0))

    @pytest.mark.parametrize("entries", [{"epoch": -7}, {"args": argparse.Namespace(epochs=float("nan"))}])
    def test_a_files_own_impossible_one_is_ignored_and_noted(
        self, entries: dict[str, Any], vit: State, mae: FromCheckpoint
    ) -> None:
        torch.save({"model": vit, **entries}, mae.path)
        checkpoint, report = open_checkpoint(replace(mae, epochs=20))
        assert checkpoint.meta.epochs == 20
        assert len(report.notes) == 1
        assert "is no number of epochs and was ignored" in report.notes[0]


class TestTag:
    def test_where_the_format_has_a_normalisation_a_tag_must_agree(
        self, mae: FromCheckpoint, own: FromCheckpoint
    ) -> None:
        for source in (mae, own):
            name = (source.arch or str(open_checkpoint(own)[0].meta.arch)).partition("@")[0]
            unknown = replace(source, arch=f"{name}.zzz{TINY if source is mae else ''}")
            assert f"timm knows no weights {name}.zzz" in refusal(unknown)
            other = refusal(replace(source, arch=unknown.arch.replace("zzz", "augreg_in21k")))
            assert f"timm's {name}.augreg_in21k mean (0.5, 0.5, 0.5)" in other
            assert "leave .augreg_in21k out of --arch" in other

    def test_timms_residual_networks_follow_theirs(self, tmp_path: Path) -> None:
        if "resnet34.ra4_e3600_r224_in1k" not in timm.list_models("resnet34.*", pretrained=True):
            pytest.skip(f"timm {timm.__version__} does not know these weights yet")
        state = {k: v.flatten()[0].expand(v.shape) for k, v in timm.create_model("resnet34").state_dict().items()}
        source = saved(tmp_path / "r.pth", state, method="RSB", arch="resnet34.ra4_e3600_r224_in1k")
        assert open_checkpoint(source)[0].meta.mean == (0.5, 0.5, 0.5)
        assert open_checkpoint(replace(source, arch="resnet34"))[0].meta.mean == (0.485, 0.456, 0.406)
        assert "timm knows no weights resnet34.zzz" in refusal(replace(source, arch="resnet34.zzz"))


def test_a_training_script_names_a_network_with_the_same_keys(resnet: State, tmp_path: Path) -> None:
    content = {"state_dict": resnet, "state_dict_ema": resnet, "arch": "resnetblur18", "epoch": 3}
    source = saved(tmp_path / "r.pth", content, method="RSB")
    assert "its entry 'arch' says resnetblur18, and resnet18 was taken for it; name it with --arch" in refusal(source)
    checkpoint, report = open_checkpoint(replace(source, arch="resnetblur18"))
    assert checkpoint.meta.arch.name == "resnetblur18"
    assert report.notes == ("its state_dict_ema, averaged weights, were not used",)


class TestValues:
    def test_integers_are_no_weights(self, vit: State, tmp_path: Path) -> None:
        state = {k: (v * 50).to(torch.int8) if v.ndim == 2 else v for k, v in vit.items()}
        text = refusal(saved(tmp_path / "q.pth", {"model": state}, arch=NAME))
        assert "8 of its 30 tensors hold no floating-point weights, such as blocks.0.attn.proj.weight (int8)" in text

    def test_a_folder_of_ours_that_is_not_finite(self, tiny_arch: Arch, tmp_path: Path) -> None:
        state = create_net(tiny_arch, num_classes=0).state_dict()
        state["norm.weight"][0] = torch.inf
        save_checkpoint(tmp_path, state, Meta(kind="backbone", method="CIM", arch=tiny_arch, epochs=3, seed=1))
        text = refusal(FromCheckpoint(path=str(tmp_path)))
        assert "is a cim-bench checkpoint, but 1 of its 30 tensors hold NaN or infinity, such as norm.weight" in text

    @pytest.mark.parametrize("positions", [torch.tensor(3.0), torch.ones(17, 48), torch.ones(1, 0, 48)])
    @pytest.mark.parametrize("name", ["DINO ViT encoder", "DINOv2 with registers"])
    def test_positions_of_another_form(self, name: str, positions: torch.Tensor, tmp_path: Path) -> None:
        file = FILES[name]
        packed = dict(file.pack(dict(file.build(0).state_dict()), {})) | {"pos_embed": positions}
        assert "pos_embed" in (text := refusal(saved(tmp_path / "x.pth", packed, **file.ask))) or "positions" in text


class TestPositions:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_whose_table_it_is(self, dtype: torch.dtype) -> None:
        assert sincos_table_of(sincos_positions(384, 14).to(dtype)) == SINCOS
        assert sincos_table_of(moco3_positions(384, 14).to(dtype)) == SINCOS_MOCO3
        assert sincos_table_of(torch.randn(1, 197, 384).to(dtype)) == NO_SINCOS
        assert sincos_table_of(torch.tensor(1.0)) == NO_SINCOS

    def test_moco_v3s_encoder_needs_no_name_and_gets_its_heads(self, tmp_path: Path) -> None:
        state = create_net(Arch(name="vit_small_patch16_224"), num_classes=0).state_dict()
        state = {k: v.flatten()[:1].expand(v.shape) for k, v in state.items()} | {"pos_embed": moco3_positions(384, 14)}
        source = saved(tmp_path / "m.pth", {"model": state})
        checkpoint, _ = open_checkpoint(source)
        assert checkpoint.meta.method == "MoCo v3"
        assert load_backbone(checkpoint, what="it").net.blocks[0].attn.num_heads == 12
        assert "is MoCo v3 encoder for DeiT, DINO was asked for" in refusal(replace(source, method="DINO"))
        head = {"head.weight": torch.zeros(1000, 384), "head.bias": torch.zeros(1000)}
        assert "for its positions are MoCo v3's fixed sin-cos table" in refusal(
            saved(tmp_path / "linear.pth", state | head, method="DeiT")
        )


class TestClassifiersInOtherNames:
    @pytest.mark.parametrize("head", ["head.fc", "classifier"])
    @pytest.mark.parametrize("method", ["", "SimCLR", "BYOL"])
    def test_a_supervised_one_is_no_backbone(self, head: str, method: str, resnet: State, tmp_path: Path) -> None:
        state = {k.replace("backbone.fc", head): v for k, v in under("backbone.", resnet).items()}
        text = refusal(saved(tmp_path / "x.pth", {"state_dict": state}, method=method))
        assert f"is a fine-tuned or supervised classifier (backbone.* with {head}.weight and neither" in text
        assert "give its pre-training checkpoint" in text

    def test_nor_is_one_with_a_neck(self, resnet: State, tmp_path: Path) -> None:
        state = {k.replace("backbone.fc", "head.fc"): v for k, v in under("backbone.", resnet).items()}
        state["neck.reduction.weight"] = torch.ones(2)
        text = refusal(saved(tmp_path / "x.pth", {"state_dict": state}, method="SimCLR"))
        assert "it has the keys of OpenMMLab ResNet, and head.fc.weight, head.fc.bias, which no such file has" in text


def test_several_formats_in_one_file(tmp_path: Path) -> None:
    state = dict(FILES["DINO ViT encoder"].build(0).state_dict())
    content = {**FILES["DINO ViT"].pack(state, state), "model": state}
    text = refusal(saved(tmp_path / "x.pth", content, arch=NAME, method="DINO"))
    assert "fits several formats, DINO ViT and DINO ViT encoder; save the state dict that you mean alone" in text


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        (r"^backbone\.blocks\.(\d+\.)?0\.ls1\.gamma$", "backbone.blocks.0.ls1.gamma"),
        (r"^(module\.)?encoder_q\.fc\.0\.weight$", "encoder_q.fc.0.weight"),
        (r"^blocks_c\.", "blocks_c.*"),
        (r"\.q_bias$", "*.q_bias"),
        (r"^(projector|classifier)\.", "projector/classifier.*"),
    ],
)
def test_patterns_are_shown_readably(pattern: str, shown: str) -> None:
    assert readable(pattern) == shown


def test_another_class_of_timms_is_no_name_for_beits_weights(tmp_path: Path) -> None:
    file = FILES["EVA-01 pre-trained"]
    state = dict(file.build(0).state_dict())
    source = saved(tmp_path / "eva.pth", file.pack(state, state), arch=f"eva_giant_patch14_224{TINY}")
    text = refusal(source)
    assert "its weights are read into timm's beit networks, eva_giant_patch14_224 was asked for" in text
    assert "ask for beit_base_patch16_224 with its sizes, or for none" in text


def test_a_setting_of_another_method_is_believed_before_the_user(tmp_path: Path) -> None:
    file = FILES["MFM ViT"]
    state = dict(file.build(0).state_dict())
    content = file.pack(state, state) | {"config": {"DATA": {"FILTER_TYPE": "sr"}}}
    text = refusal(saved(tmp_path / "sr.pth", content, arch=file.ask["arch"], method="MFM"))
    assert "has the keys of MFM ViT, but its settings say DATA.FILTER_TYPE=sr, not DATA.FILTER_TYPE=mfm" in text
