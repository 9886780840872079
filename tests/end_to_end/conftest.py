"""The command as a user types it, on a benchmark small enough for seconds."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cim_bench.cli.main import main
from tests.processes import HANG_GUARD_S

RECIPE = """
from cim_bench.evals.finetune import Finetune
from cim_bench.evals.knn import KNN
from cim_bench.evals.linear_probe import LinearProbe
from cim_bench.pretrain.cim.method import CIM
from cim_bench import Arch, Benchmark, Data, LocalExecutor, Machine, Pretraining, RandomInit, Training

DATA = Data(name="small-photos", root={root!r})
ARCH = Arch(name="vit_tiny_patch16_224", image_size=32,
            options={{"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}})
PRETEXT = CIM(context_size=32, exemplar_size=16, num_exemplars=2, decoder_dim=48, decoder_heads=4)
MACHINE = Machine(device="cpu", workers=0, micro_batch=16, save_every_s=0, log_every=1)


def pretraining():
    return Pretraining(pretext=PRETEXT, arch=ARCH, data=DATA, machine=MACHINE,
                       training=Training(epochs=4, warmup_epochs=1, effective_batch=16, base_lr=1e-2, clip_grad=1.0))


def recipe():
    short = Training(epochs=1, effective_batch=16, base_lr=1e-2)
    lars = Training(epochs=2, effective_batch=16, base_lr=1.0, optimizer="lars", weight_decay=0.0)
    return Benchmark(
        name="small", data=DATA, machine=MACHINE, executor=LocalExecutor(slots=1),
        subjects={{"CIM": pretraining(), "random": RandomInit(arch=ARCH)}},
        evaluators={{
            "knn": KNN(k=(5, 20)), "linear_probe": LinearProbe(training=lars), "finetune": Finetune(training=short)
        }},
    )
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def recipe_file(tmp_path: Path, small_root: Path) -> Path:
    """A user's benchmark recipe."""
    file = tmp_path / "my_recipe.py"
    file.write_text(RECIPE.format(root=str(small_root)))
    return file


@pytest.fixture
def pretrain_file(recipe_file: Path) -> Path:
    """A user's pre-training recipe, for `cim-bench pretrain`."""
    file = recipe_file.with_name("my_pretraining.py")
    file.write_text(recipe_file.read_text().replace("def recipe():", "def other():") + "\n\nrecipe = pretraining\n")
    return file


@pytest.fixture
def command() -> list[str]:
    """How the command starts in this environment."""
    return [sys.executable, "-m", "cim_bench.cli"]


@pytest.fixture
def cim_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command's entry point here, in an empty folder, and return what it printed: no seconds to start."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        given, out, err = [str(argument) for argument in arguments], io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(given)
            except SystemExit as stop:  # argparse and tyro, for --help and for what they refuse
                status = int(stop.code or 0)
        done = subprocess.CompletedProcess(given, status, out.getvalue(), err.getvalue())
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def shell(command: list[str], tmp_path: Path) -> Run:
    """Run the command as a process of its own in an empty folder, as a user does, and return what it printed."""

    def run(
        *arguments: str | Path, check: bool = True, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **(environment or {})},
            timeout=HANG_GUARD_S,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run
