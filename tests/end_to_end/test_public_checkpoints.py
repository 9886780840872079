"""Public files as a user gives them to the command: recognised, measured, or refused in one sentence."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cim_bench.pretrain.mae import MAE, MAEModel
from cim_bench.spec import Arch

Run = Callable[..., subprocess.CompletedProcess[str]]
NAME = "vit_tiny_patch16_224@32,depth=2,embed_dim=48,num_heads=3,patch_size=8"


@pytest.fixture
def model(tiny_arch: Arch) -> MAEModel:
    torch.manual_seed(0)
    return MAE(decoder_dim=32, decoder_depth=1, decoder_heads=4).build(tiny_arch)


@pytest.fixture
def encoder(model: MAEModel) -> dict[str, Tensor]:
    return model.backbone_state("online")


@pytest.fixture
def mae_file(model: MAEModel, encoder: dict[str, Tensor], tmp_path: Path) -> Path:
    """A pre-training checkpoint as MAE's script saves it: encoder and decoder, epoch, and its arguments."""
    decoder = {k: v for k, v in model.state_dict().items() if not k.startswith("encoder.")}
    state = {**encoder, **decoder, "decoder_pos_embed": model.decoder_positions}
    return save(tmp_path / "mae.pth", {"model": state, "epoch": 7, "args": argparse.Namespace(lr=1.0)})


def save(path: Path, what: Any) -> Path:
    torch.save(what, path)
    return path


def test_a_public_file_is_inspected_and_measured(cim_bench: Run, mae_file: Path, small_root: Path) -> None:
    seen = cim_bench("inspect", mae_file, "--arch", NAME).stdout
    for words in ("MAE pre-trained", "epochs        8", "decoder_blocks", "finite        yes", "RANDOM network"):
        assert words in seen
    arguments = ("evaluate", mae_file, "--arch", NAME, "--evaluators", "knn", "--evaluators.knn.k", "20")
    done = cim_bench(*arguments, "--data.root", small_root, "--data.name", "small", "--machine.workers", "0")
    assert "| MAE" in done.stdout.replace(str(mae_file), "MAE")
    assert "weights from elsewhere: this looks like a RANDOM network" in done.stdout  # a footnote of its number
    (records,) = (mae_file.parent / "runs" / "evaluate").rglob("records.jsonl")
    subject = json.loads(records.read_text().splitlines()[0])["subject"]
    assert (subject["method"], subject["epochs"], subject["arch"]) == ("MAE", 8.0, NAME)


class Malicious:
    """Would make a file when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def test_bad_files_get_one_sentence_and_run_nothing(
    cim_bench: Run, mae_file: Path, encoder: dict[str, Tensor], tmp_path: Path
) -> None:
    lost = {k: v for k, v in encoder.items() if "blocks.1.mlp.fc2" not in k}
    cut = tmp_path / "cut.pth"
    cut.write_bytes(mae_file.read_bytes()[:4000])
    cases = [
        (cut, "truncated"),
        (save(tmp_path / "bad.pth", {"model": Malicious()}), "--allow-pickle"),
        (save(tmp_path / "odd.pth", {f"net.{k}": v for k, v in encoder.items()}), "starts with 'net.'"),
        (save(tmp_path / "lost.pth", lost), "blocks.1.mlp"),
        (tmp_path / "nowhere.pth", "nowhere.pth"),
    ]
    for file, words in cases:
        done = cim_bench("evaluate", file, "--arch", NAME, "--method", "MAE", check=False)
        (line,) = done.stderr.splitlines()
        assert (done.returncode, line.startswith("cim-bench: ")) == (1, True)
        assert words in line
    assert not list(tmp_path.rglob("executed"))
    assert not list(tmp_path.rglob("records.jsonl"))


def test_a_hub_name_without_network(shell: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    done = shell("evaluate", "timm:vit_tiny_patch16_224.augreg_in21k", check=False)
    assert done.returncode == 1
    assert "connect to the network once" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.data
def test_a_public_classifier_goes_straight_to_the_evaluators_of_classifiers(
    cim_bench: Run, encoder: dict[str, Tensor], test_data: Path, tmp_path: Path
) -> None:
    state = {k: v for k, v in encoder.items() if not k.startswith("norm.")}
    state["pos_embed"] = state["pos_embed"] + 0.01  # MAE trains positions; fixed ones would be CIM's
    head = {"fc_norm.weight": torch.ones(48), "fc_norm.bias": torch.zeros(48), "head.bias": torch.zeros(1000)}
    save(tmp_path / "tuned.pth", {"model": {**state, **head, "head.weight": torch.randn(1000, 48)}})
    data = ("--data.root", test_data / "imagenet-sample", "--data.name", "sample", "--machine.workers", "0")
    given = ("evaluate", "tuned.pth", "--method", "MAE", "--arch", NAME, *data, "--evaluators")
    done = cim_bench(*given, "adversarial")
    assert "FGSM" in done.stdout
    refused = cim_bench(
        "evaluate", "tuned.pth", "--method", "MAE", "--arch", NAME, "--evaluators", "knn", *data, check=False
    )
    assert refused.returncode == 1
    assert "takes a pre-trained backbone" in refused.stderr
