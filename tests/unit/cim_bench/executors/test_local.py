"""Slots: how many, what each is given, and what becomes of jobs whose process dies; the processes are real."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cim_bench.common.cores import machine_cores, own_cores
from cim_bench.common.progress import PREFIX
from cim_bench.contracts.executor import Job, JobResult, Resources
from cim_bench.executors import local
from cim_bench.executors.environment import slot_environment
from cim_bench.executors.local import LocalExecutor
from cim_bench.spec import Machine

# A process that follows: "die" kills it, "stop" ends it, anything else leaves a file of its name.
FOLLOWER = (
    f"""
PREFIX = {PREFIX!r}
"""
    + """
import json, os, signal, sys
for line in sys.stdin:
    for name in json.loads(line):
        if name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "stop":
            sys.exit(3)
        print("working on", name, file=sys.stderr, flush=True)
        print(PREFIX + json.dumps({"progress": [name, 1, 2, ""]}), flush=True)
        open(os.path.join(sys.argv[1], name), "w").write(os.environ["CIM_BENCH_CORES"])
    print(PREFIX + json.dumps({"idle": True}), flush=True)
"""
)
ONCE = """
import os, sys
for name in sys.argv[2:]:
    open(os.path.join(sys.argv[1], name), "w").write(os.environ["CIM_BENCH_CORES"])
"""


class Files:
    """A graph whose records are files of its jobs' names."""

    def __init__(self, output: Path, jobs: Sequence[Job], only_here: str = "") -> None:
        self.output, self.jobs, self.only_here = output, jobs, only_here

    def command(self, jobs: Sequence[Job], *, follow: bool = False) -> list[str]:
        if follow:
            return [sys.executable, "-c", FOLLOWER, str(self.output)]
        return [sys.executable, "-c", ONCE, str(self.output), *(job.name for job in jobs)]

    def run_here(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        for job in jobs:
            (self.output / job.name).touch()
            yield JobResult(job=job, status="done")

    def finished(self, job: Job) -> JobResult | None:
        return JobResult(job=job, status="skipped") if (self.output / job.name).exists() else None

    def ended(self, job: Job, death: str = "") -> JobResult:
        done = (self.output / job.name).exists()
        return JobResult(job=job, status="done" if done else "failed", error="" if done else death)

    def block(self, job: Job, needs: Sequence[str]) -> JobResult:
        return JobResult(job=job, status="blocked", error=f"needs {needs[0]}")


def job(name: str, *needs: str, processes: int = 1) -> Job:
    resources = Resources(processes=processes, memory_gb=0.1)
    return Job(name=name, kind="evaluate", subject="s", needs=needs, resources=resources)


def run(executor: LocalExecutor, graph: Any) -> dict[str, tuple[str, str]]:
    return {result.job.name: (result.status, result.error) for result in executor.execute(graph)}


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    if machine_cores() < 2:
        monkeypatch.setattr(local, "machine_cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
def test_a_death_fails_its_own_jobs_and_the_slot_is_replaced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    jobs = [job("a"), job("die"), job("after", "die"), job("b"), job("stop"), job("c"), job("needs-c", "c")]
    assert run(LocalExecutor(slots=2), Files(tmp_path, jobs)) == {
        "a": ("done", ""),
        "b": ("done", ""),
        "c": ("done", ""),
        "needs-c": ("done", ""),
        "die": ("failed", "its process was ended by SIGKILL"),
        "stop": ("failed", "its process ended with status 3"),
        "after": ("blocked", "needs die"),
    }
    lines = capfd.readouterr().err.splitlines()
    assert {f"{name}: working on {name}" for name in ("a", "b", "c", "needs-c")} <= set(lines)  # each names its job
    assert (tmp_path / "a").read_text() == str(max(1, machine_cores() // 2))


@pytest.mark.usefixtures("two_cores")
def test_a_job_of_two_processes_takes_two_slots(tmp_path: Path) -> None:
    jobs = [job("a"), job("both", processes=2), job("b")]
    assert {status for status, _ in run(LocalExecutor(slots=2), Files(tmp_path, jobs)).values()} == {"done"}
    with pytest.raises(ValueError, match=r"both wants 2 processes and there are 1 slots; set executor.slots to 2"):
        run(LocalExecutor(slots=1), Files(tmp_path / "other", jobs))


def test_one_slot_runs_in_this_process(tmp_path: Path) -> None:
    graph = Files(tmp_path, [job("a"), job("b", "a")])
    graph.command = None  # type: ignore[method-assign,assignment]
    assert run(LocalExecutor(slots=1), graph) == {"a": ("done", ""), "b": ("done", "")}
    assert run(LocalExecutor(slots=1), graph) == {"a": ("skipped", ""), "b": ("skipped", "")}


def test_slots_that_the_machine_cannot_give_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Files(tmp_path, [job("a")])
    for slots in (0, -1):
        with pytest.raises(ValueError, match=rf"slots is {slots}; it must be an integer, at least 1, or None"):
            LocalExecutor(slots=slots)
    slots = machine_cores() + 1
    with pytest.raises(ValueError, match=rf"executor.slots is {slots} and this machine has {machine_cores()} cores"):
        run(LocalExecutor(slots=slots), graph)
    monkeypatch.setattr(local, "machine_cores", lambda: 2)
    notebook = Files(tmp_path, [job("a"), job("b")], only_here="Mine is defined in __main__")
    with pytest.raises(ValueError, match=r"executor.slots is 2, but Mine is defined in __main__; set it to 1"):
        run(LocalExecutor(slots=2), notebook)
    assert LocalExecutor()._count(notebook) == 1  # type: ignore[arg-type]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="several processes of this command; set it to 1"):
        run(LocalExecutor(slots=2), graph)


def test_slots_by_default_use_the_cores_and_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph: Any = Files(tmp_path, [job("a"), job("b")])
    monkeypatch.setattr(local, "machine_cores", lambda: 16)
    for free, slots in ((64.0, 4), (0.25, 2), (0.01, 1)):
        monkeypatch.setattr(local, "free_memory_gb", lambda free=free: free)
        assert LocalExecutor()._count(graph) == slots
    assert LocalExecutor()._count(Files(tmp_path, [job("a")])) == 1  # type: ignore[arg-type]


def test_each_slot_has_its_share_of_cores_and_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    assert slot_environment([2], 3, 3)["CUDA_VISIBLE_DEVICES"] == "7"
    assert slot_environment([0, 1], 3, 3)["CUDA_VISIBLE_DEVICES"] == "4,5"
    environment = slot_environment([1], 2, 0)
    assert environment["OMP_NUM_THREADS"] == environment["CIM_BENCH_CORES"] == str(max(1, machine_cores() // 2))
    monkeypatch.setenv("CIM_BENCH_CORES", "3")
    assert own_cores() == 3
    assert Machine(workers=8).loader_processes == 3
