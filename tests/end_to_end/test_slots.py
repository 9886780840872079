"""Two jobs side by side, as a user runs them: the numbers of one slot, and a run that was killed goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cim_bench.common.cores import machine_cores
from tests.processes import wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
SLOTS = ["--executor.slots", "2"]
LONG = ["--subjects.CIM.training.epochs", "40"]
LOADERS = ["--machine.workers", "1", "--subjects.CIM.machine.workers", "1"]  # forked by a slot that reads its stdin

pytestmark = pytest.mark.skipif(machine_cores() < 2, reason="two slots need two cores")


def numbers(folder: Path) -> dict[tuple[Any, ...], tuple[float, int]]:
    """Value and count of every measurement, by what it is of."""
    found = {}
    for file in folder.rglob("records.jsonl"):
        for record in map(json.loads, file.read_text().splitlines()):
            one = record["measurement"]
            place = record["key"], record["subject"]["name"], one["metric"], json.dumps(one["facets"])
            found[place] = one["value"], one["n"]
    return found


def losses(folder: Path) -> list[tuple[int, float]]:
    log = next((folder / "CIM").glob("pretrain-*/metrics.jsonl"))
    return [(line["step"], line["loss"]) for line in map(json.loads, log.read_text().splitlines()) if "loss" in line]


def steps(folder: Path) -> int:
    return sum(len(log.read_text().splitlines()) for log in folder.glob("CIM/pretrain-*/metrics.jsonl"))


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the slots of a run."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in children.read_text().split()]


@pytest.mark.slow
def test_killed_and_gone_on_with_two_slots_the_numbers_are_those_of_one(
    shell: Run, command: list[str], recipe_file: Path, tmp_path: Path
) -> None:
    shell("run", recipe_file, "--output", "whole", *LONG, "--executor.slots", "1", environment={"OMP_NUM_THREADS": "1"})
    start = [*command, "run", str(recipe_file), "--output", "cut", *LONG, *LOADERS, *SLOTS]
    cut = tmp_path / "cut"

    def run_until(met: Callable[[], bool], what: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(start, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: process.poll() is not None or met(), what)
        assert process.poll() is None, process.communicate()[1]
        return process

    first = run_until(lambda: steps(cut) > 20, "training steps")
    slots = workers(first)
    assert len(slots) == 2
    first.kill()  # the command alone: its slots must not go on without it
    first.wait()
    wait_until(lambda: not any(Path(f"/proc/{slot}").exists() for slot in slots), "the end of the slots")

    reached = steps(cut)
    second = run_until(lambda: steps(cut) > reached + 20, "further training steps")
    for slot in workers(second):
        os.kill(slot, signal.SIGKILL)
    said = second.communicate()[1]
    assert second.returncode == 1
    assert "failed  CIM/pretrain its process was ended by SIGKILL" in said
    assert "blocked CIM/knn needs CIM/pretrain" in said

    third = shell("run", recipe_file, "--output", "cut", *LONG, *LOADERS, *SLOTS)
    assert "failed" not in third.stderr
    assert not list(cut.rglob("*-failed"))
    assert losses(cut) == losses(tmp_path / "whole")
    assert numbers(cut) == numbers(tmp_path / "whole")
    assert third.stdout == shell("report", "whole").stdout
