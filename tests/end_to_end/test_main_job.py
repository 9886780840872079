"""From photographs to a table: run, skip, kill, resume, draw."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
from PIL import Image
from safetensors.torch import load_file

Run = Callable[..., subprocess.CompletedProcess[str]]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("records.jsonl"))}


def test_benchmark_runs_skips_and_reports(cim_bench: Run, recipe_file: Path, tmp_path: Path) -> None:
    plan = cim_bench("run", recipe_file, "--plan", "--output", "out").stdout
    assert [line.split()[0] in ("to", "waits") for line in plan.splitlines()] == [True] * 7 + [False]
    assert plan.splitlines()[-1].startswith("7 jobs: 4 to do, 3 waits")
    first = cim_bench("run", recipe_file, "--output", "out")
    for column in ("k-NN", "Linear", "Fine-tune"):
        assert column in first.stdout
    assert "reported" in first.stdout
    assert (tmp_path / "out" / "vit.md").read_text().strip() in first.stdout
    kept = snapshot(tmp_path / "out")
    assert len(kept) == 6
    record = json.loads(next(iter(kept.values())).splitlines()[0])
    assert record["measurement"]["n"] == 24
    assert record["provenance"]["packages"]["torch"]
    second = cim_bench("run", recipe_file, "--output", "out")
    assert second.stderr.count("skipped") == 7
    assert snapshot(tmp_path / "out") == kept
    assert cim_bench("run", recipe_file, "--plan", "--output", "out").stdout.endswith("7 jobs: 7 finished\n")
    assert cim_bench("report", "out").stdout == second.stdout
    # another value is another job: nothing that was finished is touched
    cim_bench("run", recipe_file, "--output", "out", "--evaluators.knn.temperature", "0.1", check=False)
    assert kept.items() <= snapshot(tmp_path / "out").items()


def test_killed_pretraining_ends_with_the_same_weights(
    cim_bench: Run, command: list[str], pretrain_file: Path, tmp_path: Path
) -> None:
    longer = ("--training.epochs", "30")
    cim_bench("pretrain", pretrain_file, "--output", "whole", *longer)
    kills = 0
    for _ in range(3):
        process = subprocess.Popen([*command, "pretrain", str(pretrain_file), "--output", "cut", *longer], cwd=tmp_path)
        steps = -1
        for _ in range(600):
            time.sleep(0.05)
            logs = list((tmp_path / "cut").rglob("metrics.jsonl"))
            now = len(logs[0].read_text().splitlines()) if logs else 0
            steps = now if steps < 0 and logs else steps
            if process.poll() is not None or (logs and now > steps + 12):
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 1
    cim_bench("pretrain", pretrain_file, "--output", "cut", *longer)
    metas = [json.loads(next((tmp_path / f).rglob("meta.json")).read_text()) for f in ("whole", "cut")]
    assert metas[0]["hash"] == metas[1]["hash"]
    logs = [next((tmp_path / f).rglob("metrics.jsonl")).read_text().splitlines() for f in ("whole", "cut")]
    losses = [[(r["step"], r["loss"]) for r in map(json.loads, lines) if "loss" in r] for lines in logs]
    assert losses[0] == losses[1]


def test_a_part_of_a_benchmark_and_then_the_rest(cim_bench: Run, recipe_file: Path, tmp_path: Path) -> None:
    """A part that only pre-trains has no table and succeeds; a later part finds what is there."""
    made = cim_bench("run", recipe_file, "--output", "out", "--jobs", "CIM/pretrain")
    assert made.stdout == ""
    assert "done    CIM/pretrain" in made.stderr
    text = cim_bench("run", recipe_file, "--output", "out", "--jobs", "CIM/knn", "random/kn*").stdout
    assert "Linear" in text
    assert sorted(snapshot(tmp_path / "out")) == sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").glob("*/knn-*/records.jsonl")
    )
    assert len(snapshot(tmp_path / "out")) == 2


@pytest.mark.parametrize("pretext", ["CIM", "SimMIM(mask_patch=16, drop_path=0.5)"])
def test_two_processes_train_the_same_weights_as_one(
    cim_bench: Run, pretrain_file: Path, tmp_path: Path, pretext: str
) -> None:
    """Two passes of eight images in one process, or one pass of eight in each of two (gloo): the same gradients.

    Drop path draws in both passes what it would draw in one process.
    """
    if pretext != "CIM":
        text = re.sub("^PRETEXT = .*$", f"PRETEXT = {pretext}", pretrain_file.read_text(), flags=re.MULTILINE)
        pretrain_file.write_text("from cim_bench.pretrain.simmim import SimMIM\n" + text)
    cim_bench("pretrain", pretrain_file, "--output", "one", "--machine.micro-batch", "8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "cim_bench.cli.commands"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [*launcher, "pretrain", str(pretrain_file), "--output", "two"]
    subprocess.run(both, cwd=tmp_path, env=environment, check=True, timeout=300)
    logs = [next((tmp_path / f).rglob("metrics.jsonl")).read_text().splitlines() for f in ("one", "two")]
    for line, other in zip(*logs, strict=True):
        one, two = json.loads(line), json.loads(other)
        for key in one.keys() - {"images_per_s"}:
            assert two[key] == pytest.approx(one[key], rel=1e-4), key


def test_checkpoint_is_a_plain_timm_state_and_can_be_drawn_and_measured(
    cim_bench: Run, pretrain_file: Path, photos_root: Path, tmp_path: Path
) -> None:
    cim_bench("pretrain", pretrain_file, "--output", "made")
    checkpoint = next((tmp_path / "made").rglob("meta.json")).parent
    net = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, num_classes=0, patch_size=8, embed_dim=48, depth=2, num_heads=3
    )
    net.load_state_dict(load_file(checkpoint / "weights.safetensors"))
    log = [json.loads(line) for line in next((tmp_path / "made").rglob("metrics.jsonl")).read_text().splitlines()]
    assert any("val_map_iou" in line and "val_constant_map_iou" in line for line in log)
    assert list((tmp_path / "made").rglob("events.out.tfevents.*"))
    images = sorted((photos_root / "val" / "chelsea").glob("*.png"))[:2]
    cim_bench("visualize", checkpoint, *images, "--output", "seen.png")
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.width > 300
    root = pretrain_file.read_text().split("root='")[1].split("'")[0]
    done = cim_bench(
        "evaluate",
        checkpoint,
        "--evaluators",
        "knn",
        "--output",
        "measured",
        "--data.root",
        root,
        "--data.name",
        "small-photos",
        "--evaluators.knn.k",
        "5",
        "20",
        "--machine.workers",
        "0",
    )
    assert "k-NN" in done.stdout
