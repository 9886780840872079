"""What ``config.json`` beside an export of Hugging Face says: which model it is, and the eps of its norms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cim_bench.models.backbone import load_backbone
from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.spec import FromCheckpoint

from .public_files import FILES


def export(folder: Path, name: str, *, ask: dict[str, Any] | None = None, **config: Any) -> FromCheckpoint:
    """A folder as ``save_pretrained`` leaves it, of one of the public files; ``{}`` writes no config."""
    file = FILES[name]
    state = dict(file.build(0).state_dict())
    torch.save(file.pack(state, state), folder / "pytorch_model.bin")
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return FromCheckpoint(path=str(folder), **({"normalisation": "imagenet"} | file.ask | (ask or {})))


def refusal(source: FromCheckpoint) -> str:
    with pytest.raises(ValueError, match=r"\w") as error:
        open_checkpoint(source)
    assert "\n" not in str(error.value)
    return str(error.value)


class TestModelType:
    @pytest.mark.parametrize(
        ("name", "model_type", "wanted"),
        [
            ("Hugging Face ViT", "vit_msn", "model_type=vit;"),
            ("Hugging Face Dinov2", "dinov2_with_registers", "model_type=dinov2"),
            ("Hugging Face BEiT", "vit", "model_type=beit"),
        ],
    )
    def test_another_one_is_refused_whatever_is_asked_for(
        self, name: str, model_type: str, wanted: str, tmp_path: Path
    ) -> None:
        source = export(tmp_path, name, model_type=model_type)
        for form in ("", name):
            text = refusal(FromCheckpoint(**(vars(source) | {"format": form})))
            assert f"but config.json beside it says model_type={model_type}, not model_type=" in text
        assert wanted in refusal(source)

    def test_data2vecs_export_is_no_beit_and_the_reverse(self, tmp_path: Path) -> None:
        ask = {"normalisation": "inception"}
        for name, model_type, other in [
            ("BEiT", "beit", "data2vec"),
            ("data2vec", "data2vec-vision", "BEiT"),
        ]:
            (tmp_path / name).mkdir()
            source = export(tmp_path / name, f"Hugging Face {name}", ask=ask | {"method": ""}, model_type=model_type)
            checkpoint, report = open_checkpoint(source)
            assert (checkpoint.meta.method, "as told" in report.evidence) == (name, False)
            assert f"is Hugging Face {name}, {other} was asked for" in refusal(
                FromCheckpoint(**(vars(source) | {"method": other}))
            )

    def test_a_vit_may_be_of_any_method_without_a_model_type_of_its_own(self, tmp_path: Path) -> None:
        source = export(tmp_path, "Hugging Face ViT", ask={"method": "DINO"}, model_type="vit")
        checkpoint, report = open_checkpoint(source)
        assert (checkpoint.meta.method, report.format) == ("DINO", "Hugging Face ViT")
        assert "as told" in report.evidence
        for method in ("MAE", "DINOv2", "BEiT", "I-JEPA"):
            assert f"is Hugging Face ViT (whatever trained it), {method} was asked for" in refusal(
                FromCheckpoint(**(vars(source) | {"method": method}))
            )
        (tmp_path / "config.json").unlink()
        assert "DINO was asked for; put its config.json beside it" in refusal(source)

    def test_a_model_that_is_not_read_is_named(self, tmp_path: Path) -> None:
        torch.save({"embeddings.register_tokens": torch.zeros(1, 4, 8)}, tmp_path / "pytorch_model.bin")
        (tmp_path / "config.json").write_text('{"model_type": "dinov3_vit"}')
        text = refusal(FromCheckpoint(path=str(tmp_path)))
        assert "is an export of Hugging Face's model dinov3_vit, by the config.json beside it" in text
        assert "beit, data2vec-vision, dinov2, dinov2_with_registers, ijepa, vit, vit_mae are read" in text

    def test_names_in_memory(self, tmp_path: Path) -> None:
        names = ("embeddings.patch_embeddings.projection.weight", "layers.0.attention.q_proj.weight")
        torch.save({name: torch.zeros(2) for name in names}, tmp_path / "state.pth")
        text = refusal(FromCheckpoint(path=str(tmp_path / "state.pth")))
        assert text.endswith("save it with model.save_pretrained(FOLDER), and give FOLDER")


class TestEps:
    @pytest.mark.parametrize(
        ("config", "eps"),
        [
            ({}, 1e-6),
            ({"model_type": "vit"}, 1e-12),
            ({"layer_norm_eps": 1e-6}, 1e-6),
            ({"layer_norm_eps": 1e-5}, 1e-5),
        ],
    )
    def test_every_norm_has_it(self, config: dict[str, Any], eps: float, tmp_path: Path) -> None:
        checkpoint, _ = open_checkpoint(export(tmp_path, "Hugging Face ViT", **config))
        norms = [norm for norm in load_backbone(checkpoint, what="it").modules() if isinstance(norm, nn.LayerNorm)]
        assert [norm.eps for norm in norms] == [eps] * 5
        assert ("norm_eps" in str(checkpoint.meta.arch)) == (eps != 1e-6)

    def test_it_makes_another_identity(self, tmp_path: Path) -> None:
        found = {
            open_checkpoint(export(tmp_path, "Hugging Face ViT", layer_norm_eps=eps))[0].meta.identity
            for eps in (1e-12, 1e-6, 1e-5)
        }
        assert len(found) == 3

    @pytest.mark.parametrize("eps", [0, -1e-6, "1e-6", True, None, 2])
    def test_no_number_of_that_sort(self, eps: Any, tmp_path: Path) -> None:
        text = refusal(export(tmp_path, "Hugging Face ViT", model_type="vit", layer_norm_eps=eps))
        assert f"config.json beside it says layer_norm_eps = {eps!r}; it must be a number between 0 and 1" in text
