"""What bad input gets: one sentence that names the thing, a non-zero exit, and earlier results whole."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def refused(run: Run, *arguments: str | Path, words: tuple[str, ...]) -> None:
    done = run(*arguments, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("cim-bench: ")]
    assert done.returncode != 0
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "nosuch"), ("nosuch", "demo")),
        (("run", "nosuch.py"), ("nosuch.py", "no recipe file")),
        (("pretrain", "demo"), ("demo", "cim-bench run demo")),
        (("run", "demo", "--subjects.CIM-ViT.training.epoch", "3"), ("--subjects.CIM-ViT.training.epoch",)),
        (("run", "demo", "--subjects.CIM-ViT.training.epochs", "many"), ("epochs", "many")),
        (("run", "demo", "--executor", "nosuch"), ("nosuch", "local")),
        (("pretrain", "cim_vit_base", "--data.root", "nowhere"), ("nowhere", "train")),
        (("evaluate", "nowhere"), ("there is no checkpoint file nowhere; give a file, a folder of ours or timm:NAME",)),
        (("run", "demo", "--jobs", "*/nosuch"), ("*/nosuch", "Scratch-ViT/knn")),
        (("report", "nowhere"), ("nowhere",)),
    ],
)
def test_one_sentence(cim_bench: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(cim_bench, *arguments, words=words)


def test_the_process_itself_ends_with_one_sentence(shell: Run) -> None:
    refused(shell, "run", "nosuch", words=("nosuch", "demo"))


def test_unknown_evaluator(cim_bench: Run, pretrain_file: Path, tmp_path: Path) -> None:
    cim_bench("pretrain", pretrain_file, "--output", "made", "--training.epochs", "1")
    checkpoint = next((tmp_path / "made").rglob("meta.json")).parent
    refused(cim_bench, "evaluate", checkpoint, "--evaluators", "nosuch", words=("nosuch", "knn"))
    refused(cim_bench, "evaluate", checkpoint, "--evaluators", "demo", words=("demo", "not an evaluator"))
    # weights of another architecture under this one's name
    meta = checkpoint / "meta.json"
    meta.write_text(meta.read_text().replace('"depth": 2', '"depth": 3'))
    refused(cim_bench, "evaluate", checkpoint, words=("meta.json was changed after it was written",))
    unsealed = {key: value for key, value in json.loads(meta.read_text()).items() if key != "seal"}
    meta.write_text(json.dumps(unsealed | {"schema": 1}))  # as before version 0.3.0
    root = pretrain_file.read_text().split("root='")[1].split("'")[0]
    done = cim_bench("evaluate", checkpoint, "--evaluators", "knn", "--data.root", root, check=False)
    assert done.returncode != 0
    assert "missing blocks.2" in done.stderr
    assert "Traceback" not in done.stderr


def test_truncated_image_fails_its_jobs_by_name(
    cim_bench: Run, recipe_file: Path, small_root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(small_root, copy)
    recipe_file.write_text(recipe_file.read_text().replace(str(small_root), str(copy)))
    cim_bench("run", recipe_file, "--output", "out")
    kept = {p: p.read_bytes() for p in (tmp_path / "out").rglob("records.jsonl")}
    broken = next((copy / "val" / "moon").glob("*.png"))
    broken.write_bytes(broken.read_bytes()[:300])
    done = cim_bench("run", recipe_file, "--output", "out", check=False)
    assert done.returncode != 0
    assert f"moon/{broken.name}" in done.stderr
    assert "Traceback" not in done.stderr
    assert all(path.read_bytes() == content for path, content in kept.items())
    listed = tmp_path / "bad.txt"
    listed.write_text(f"moon/{broken.name}\n")
    again = cim_bench("run", recipe_file, "--output", "out", "--data.bad-files", listed)
    assert '"n": 23' in "".join(p.read_text() for p in (tmp_path / "out").rglob("records.jsonl"))
    assert "failed" not in again.stderr


def test_unwritable_output(cim_bench: Run, recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(cim_bench, "run", recipe_file, "--output", tmp_path / "file" / "out", words=("file/out", "--output"))


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(b"0" * 4096) == 4096:
            pass


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own, small enough to fill."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_full_disk_and_read_only_disk(cim_bench: Run, recipe_file: Path, tiny_disk: Path) -> None:
    only_knn = recipe_file.read_text().replace(
        '"linear_probe": LinearProbe(training=lars), "finetune": Finetune(training=short)', ""
    )
    recipe_file.write_text(only_knn.replace('"CIM": pretraining(), ', ""))
    output = tiny_disk / "out"
    cim_bench("run", recipe_file, "--output", output)
    kept = {p: p.read_bytes() for p in output.rglob("records.jsonl")}
    filler = tiny_disk / "filler"
    fill(filler)
    done = cim_bench("run", recipe_file, "--output", output, "--seed", "1", check=False)
    assert done.returncode != 0
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    filler.unlink()
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert cim_bench("run", recipe_file, "--output", output).stderr.count("skipped") == 1
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    refused(
        cim_bench, "run", recipe_file, "--output", output, "--seed", "2", words=(str(output), "Read-only", "--output")
    )


def test_a_disk_that_fills_up_in_a_pre_training(cim_bench: Run, pretrain_file: Path, tiny_disk: Path) -> None:
    """Two resume points of 1.4 MB do not fit beside each other: the first stays, and the training goes on from it."""
    output = tiny_disk / "out"
    cim_bench("pretrain", pretrain_file, "--output", tiny_disk.parent / "whole")
    refused(
        cim_bench,
        "pretrain",
        pretrain_file,
        "--output",
        output,
        words=("cannot write", "resume.pt: No space left on device; free space, and the same command goes on"),
    )
    (kept,) = output.glob("*/resume.pt")
    assert not [file for file in output.rglob(".*") if file.is_file()]
    logged = len(kept.with_name("metrics.jsonl").read_text().splitlines())
    subprocess.run(["mount", "-o", "remount,size=20m", str(tiny_disk)], check=True)
    cim_bench("pretrain", pretrain_file, "--output", output)
    assert logged >= 1
    (made,), (whole,) = (
        list(folder.glob("*/checkpoint/weights.safetensors")) for folder in (output, tiny_disk.parent / "whole")
    )
    assert made.read_bytes() == whole.read_bytes()
