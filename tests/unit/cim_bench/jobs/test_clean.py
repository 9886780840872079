"""What clean removes: old keys, failures, resume points, subjects that are gone; and what it never touches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.cli.main import main
from cim_bench.evals.knn import KNN
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs.clean import find_outputs, plan_cleaning
from cim_bench.jobs.runner import Runner
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine


@pytest.fixture
def benchmark(tiny_arch: Arch, small_photos: Data, cpu: Machine) -> Benchmark:
    return Benchmark(
        name="b",
        subjects={"random": RandomInit(arch=tiny_arch), "other": RandomInit(arch=replace(tiny_arch, image_size=64))},
        evaluators={"knn": KNN(k=(1,))},
        data=small_photos,
        machine=cpu,
        executor=LocalExecutor(slots=1),
    )


def reasons(output: Path) -> dict[str, str]:
    plan = plan_cleaning(output)
    return {str(item.path.relative_to(output)): item.reason for item in plan.removable}


def test_old_keys_failures_and_subjects_that_are_gone(
    benchmark: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    Runner(benchmark, output).run()
    (first,) = (output / "random").iterdir()
    (gone,) = (output / "other").iterdir()
    lost = FromCheckpoint(path=str(tmp_path / "lost.pth"))
    now = replace(
        benchmark,
        subjects={"random": benchmark.subjects["random"], "lost": lost},
        evaluators={"knn": KNN(k=(5,))},
    )
    Runner(now, output).run()
    kept = next(path for path in (output / "random").iterdir() if path != first)
    (kept / "resume.pt").write_bytes(b"0" * 100)
    (output / "lost" / "knn-0123456789ab").mkdir()  # it cannot be told whether the present benchmark needs it
    (output / "notes").mkdir()
    (output / "notes" / "mine.txt").write_text("not ours")
    found = reasons(output)
    older = next(name for name in found if name.startswith("benchmarks/"))
    assert found == {
        older: "a benchmark that was run before the present one",
        f"random/{first.name}": "no job of the present benchmark has this key",
        f"other/{gone.name}": "the present benchmark has no subject other",
        "lost/knn-failed": "the record of a failed job",
        f"random/{kept.name}/resume.pt": "the resume point of a finished job",
    }
    assert [line.partition(":")[0] for line in plan_cleaning(output).kept] == ["lost/knn"]

    assert main(["clean", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert first.exists()
    assert f"random/{first.name}  no job of the present benchmark has this key" in listed
    assert "kept as it cannot be told: lost/knn: there is no checkpoint file" in listed
    assert "can be removed with --delete" in listed
    assert main(["clean", str(output), "--delete"]) == 0
    assert reasons(output) == {}
    assert (kept / "records.jsonl").exists()
    assert (output / "lost" / "knn-0123456789ab").exists()
    assert (output / "notes" / "mine.txt").exists()
    assert find_outputs(tmp_path) == [output]


def test_a_finished_benchmark_keeps_everything(benchmark: Benchmark, tmp_path: Path) -> None:
    Runner(benchmark, tmp_path).run()
    Runner(benchmark, tmp_path).run()
    assert reasons(tmp_path) == {}


def test_a_folder_without_output_folders_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"cim-bench: {tmp_path} holds no output folder with benchmarks/; give one that `cim-bench run` has written\n"
    )


def test_writes_that_were_cut_off_are_removed_by_clean_and_by_their_own_job(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    Runner(benchmark, tmp_path).run()
    (job,) = (tmp_path / "random").iterdir()
    left = [
        job / ".records.jsonl.abcd1234",
        tmp_path / ".vit.md.abcd1234",
        tmp_path / "benchmarks" / ".1.json.abcd123_",
    ]
    for path in (*left, tmp_path / ".mine"):
        path.write_text("half")
    assert reasons(tmp_path) == {str(path.relative_to(tmp_path)): "a write that was cut off" for path in left}
    (job / "records.jsonl").unlink()
    Runner(benchmark, tmp_path).run()
    assert not left[0].exists()
    assert (job / "records.jsonl").exists()
