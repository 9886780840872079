"""The example of `docs/new_evaluator.md`, in a package of its own: listed, run beside ours, in the tables."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cim_bench.common.cores import machine_cores
from cim_bench.models.backbone import create_net
from cim_bench.models.checkpoint import Meta, save_checkpoint
from cim_bench.records.store import read_records
from cim_bench.spec import Arch, Data
from tests.docs.conftest import blocks
from tests.docs.rooms import ROOT

PAGE = "new_evaluator.md"


def test_it_imports_from_the_door_alone() -> None:
    (module,) = blocks(PAGE, "python")
    assert re.findall(r"(?:from|import) (cim_bench[\w.]*)", module) == ["cim_bench"]
    assert len(module.splitlines()) < 50


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_arch: Arch) -> Path:
    torch.manual_seed(0)
    meta = Meta(kind="backbone", method="random", arch=tiny_arch, epochs=None, seed=0)
    save_checkpoint(tmp_path / "checkpoint", create_net(tiny_arch, num_classes=0).state_dict(), meta)
    return tmp_path / "checkpoint"


def test_installed_listed_and_run_beside_ours_in_two_slots(
    installed: Callable[[str], Path],
    shell: Callable[..., subprocess.CompletedProcess[str]],
    checkpoint: Path,
    small_photos: Data,
    tmp_path: Path,
) -> None:
    site = installed(PAGE)
    listed = shell(site, "list").stdout
    assert re.search(r"^  nearest_mean +Nearest class mean on frozen features\.$", listed, flags=re.MULTILINE)
    knob = ["--evaluators.nearest_mean.feature", "mean_patch"]
    assert " ".join(knob) in (ROOT / "docs" / PAGE).read_text()
    options = ["--machine.device", "cpu", "--machine.workers", "0", "--evaluators.knn.k", "5", *knob]
    slots = ["--executor.slots", str(min(2, machine_cores()))]
    named = ["--evaluators", "nearest_mean", "knn", "--data.root", small_photos.root]
    made = shell(site, "evaluate", checkpoint, *named, "--output", "out", *slots, *options)
    records = {record.protocol.evaluator: record for record in read_records(tmp_path / "out")}
    assert records.keys() == {"nearest_mean", "knn"}
    own = records["nearest_mean"]
    assert own.measurement is not None
    assert own.measurement.n == 24
    assert own.protocol.version == 1
    assert own.protocol.settings == {"type": "NearestMean", "feature": "mean_patch"}
    assert own.protocol.passed == {"feature": "mean_patch"}
    assert own.provenance.data == records["knn"].provenance.data
    others = (tmp_path / "out" / "others.md").read_text()
    assert "nearest_mean" in others
    assert f"{100 * own.measurement.value:.1f}" in others
    assert others.strip() in made.stdout
    (file,) = (tmp_path / "out").glob("*/nearest_mean-*/outcomes/all.parquet")
    assert file.parents[1].name.endswith(own.key[:12])
