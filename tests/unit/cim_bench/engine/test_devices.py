"""Processes that were started together know of each other, also where there is no accelerator."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cim_bench.engine.devices import LAUNCH, free_memory_gb, is_main, make_accelerator, process_count
from cim_bench.spec import Machine
from tests.processes import in_two_processes


def note_processes(rank: int, folder: Path, device: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.pop("ACCELERATE_USE_CPU")  # torchrun does not set it
    engine = make_accelerator(Machine(device=device))  # type: ignore[arg-type]
    (folder / str(rank)).write_text(f"{engine.process_index} of {engine.num_processes}, {process_count()}")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_two_processes_on_the_cpu_are_two(device: str, tmp_path: Path) -> None:
    in_two_processes(note_processes, tmp_path, device, meet=tmp_path / "meet")
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["0 of 2, 2", "1 of 2, 2"]


@pytest.mark.parametrize(
    "left",
    [
        {"RANK": "1"},
        {"RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
        {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        {"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
    ],
    ids=str,
)
def test_what_another_program_left_in_the_environment_is_refused(
    left: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    assert (is_main(), process_count()) == (True, 1)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"the environment has RANK={left.get('RANK')}|WORLD_SIZE=2, which no start"):
        is_main()


def test_what_torchrun_tells_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(LAUNCH, ("1", "2", "localhost", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    assert (is_main(), process_count()) == (False, 2)


def test_free_memory_is_a_positive_number_of_gigabytes() -> None:
    assert free_memory_gb() > 0.01
