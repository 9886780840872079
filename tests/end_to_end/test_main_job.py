"""From photographs to a table: run, skip, kill, resume, draw."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
from PIL import Image
from safetensors.torch import load_file

from cim_bench.cli.main import main
from cim_bench.engine.resume import RESUME
from tests.processes import HANG_GUARD_S, in_two_processes, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("records.jsonl"))}


def test_benchmark_runs_skips_and_reports(cim_bench: Run, shell: Run, recipe_file: Path, tmp_path: Path) -> None:
    """The first run is a process of its own; what it left on disk is all that the others know."""
    plan = cim_bench("run", recipe_file, "--plan", "--output", "out").stdout
    assert [line.split()[0] in ("to", "waits") for line in plan.splitlines()] == [True] * 7 + [False] * 2
    assert plan.splitlines()[-2].startswith("7 jobs: 4 to do, 3 waits")
    shared = "jobs that share one pass over their images: knn (2 jobs)"
    assert plan.splitlines()[-1] == shared
    first = shell("run", recipe_file, "--output", "out")
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
    assert cim_bench("run", recipe_file, "--plan", "--output", "out").stdout.endswith(f"7 jobs: 7 finished\n{shared}\n")
    assert cim_bench("report", "out").stdout == second.stdout
    # another value is another job: nothing that was finished is touched
    cim_bench("run", recipe_file, "--output", "out", "--evaluators.knn.temperature", "0.1", check=False)
    assert kept.items() <= snapshot(tmp_path / "out").items()


def logged(folder: Path) -> int:
    """Lines in the log of the one pre-training below a folder."""
    logs = list(folder.rglob("metrics.jsonl"))
    return len(logs[0].read_text().splitlines()) if logs else 0


def test_killed_pretraining_ends_with_the_same_weights(
    cim_bench: Run, command: list[str], pretrain_file: Path, tmp_path: Path
) -> None:
    """Killed twice by SIGKILL, each time some steps further than the last, and once more started to the end."""
    longer = ("--training.epochs", "20")
    cim_bench("pretrain", pretrain_file, "--output", "whole", *longer)
    cut = tmp_path / "cut"
    kills = 0
    for _ in range(2):
        before = logged(cut)
        with subprocess.Popen(
            [*command, "pretrain", str(pretrain_file), "--output", str(cut), *longer],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) as process:
            wait_until(lambda p=process, n=before: p.poll() is not None or logged(cut) > n + 12, "training steps")
            process.kill()
        kills += process.returncode == -signal.SIGKILL and not list(cut.rglob("meta.json"))
    assert kills >= 1
    assert 12 < logged(cut) < logged(tmp_path / "whole")
    assert list(cut.rglob(RESUME))
    cim_bench("pretrain", pretrain_file, "--output", cut, *longer)
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


def same_losses(folder: Path) -> None:
    """The logs below ``one`` and ``two``, line by line."""
    logs = [next((folder / f).rglob("metrics.jsonl")).read_text().splitlines() for f in ("one", "two")]
    for line, other in zip(*logs, strict=True):
        one, two = json.loads(line), json.loads(other)
        for key in one.keys() - {"images_per_s"}:
            assert two[key] == pytest.approx(one[key], rel=1e-4), key


def test_two_processes_train_the_same_weights_as_one(cim_bench: Run, pretrain_file: Path, tmp_path: Path) -> None:
    """Two passes of eight images in one process, or one pass of eight in each of two (gloo): the same gradients."""
    cim_bench("pretrain", pretrain_file, "--output", "one", "--machine.micro-batch", "8")
    # standalone: a free port, so that no other launch of this machine is in the way
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    both = [*launcher, "-m", "cim_bench.cli", "pretrain", str(pretrain_file), "--output", "two"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(both, cwd=tmp_path, env=environment, check=True, timeout=HANG_GUARD_S)
    same_losses(tmp_path)


def pretrain_in(_rank: int, recipe: Path) -> None:
    assert main(["pretrain", str(recipe), "--output", "two"]) == 0


def test_two_processes_draw_the_drop_paths_of_one(cim_bench: Run, pretrain_file: Path, tmp_path: Path) -> None:
    """Drop path draws in the passes of two processes what it would draw in both passes of one."""
    simmim = "PRETEXT = SimMIM(mask_patch=16, drop_path=0.5)"
    text = re.sub("^PRETEXT = .*$", simmim, pretrain_file.read_text(), flags=re.MULTILINE)
    pretrain_file.write_text("from cim_bench.pretrain.simmim import SimMIM\n" + text)
    in_two_processes(pretrain_in, pretrain_file, meet=tmp_path / "meet")
    cim_bench("pretrain", pretrain_file, "--output", "one", "--machine.micro-batch", "8")
    same_losses(tmp_path)


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
    assert any(
        {"val_loss", "val_reference_loss", "val_map_iou", "val_reference_map_iou"} <= line.keys() for line in log
    )
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
