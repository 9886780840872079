"""What --plan prints: states, what is missing, which checkpoints to give and where they are published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.cli.plan_view import plan_text
from cim_bench.evals.knn import KNN
from cim_bench.evals.robustbench.protocol import RobustBench
from cim_bench.jobs.runner import Runner
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine


def test_jobs_missing_sets_and_absent_checkpoints(
    tiny_arch: Arch, small_photos: Data, cpu: Machine, tmp_path: Path
) -> None:
    benchmark = Benchmark(
        name="b",
        subjects={
            "random": RandomInit(arch=tiny_arch),
            "MAE-ViT-B": FromCheckpoint(method="MAE", published="somewhere.pth"),
            "MP3": FromCheckpoint(method="MP3"),
        },
        evaluators={"knn": KNN(k=(1,), feature="mean_patch")},
        data=Data(name="away", root=str(tmp_path / "nowhere")),
        machine=cpu,
    )
    text = plan_text(Runner(benchmark, tmp_path / "out")).splitlines()
    assert text[:2] == ["missing   random/knn", "1 jobs: 1 missing"]
    assert text[4].startswith("  --data.root  no split 'train'")
    assert "nowhere" in text[4]
    assert text[4].endswith("[1 job: knn]")
    assert text[-2:] == [
        "  --subjects.MAE-ViT-B.path FILE  somewhere.pth",
        "  --subjects.MP3.path FILE        not published",
    ]
    there = Benchmark(**{**vars(benchmark), "data": small_photos})
    assert plan_text(Runner(there, tmp_path / "out")).startswith("to do     random/knn\n1 jobs: 1 to do")
    Runner(there, tmp_path / "out").run()
    assert plan_text(Runner(there, tmp_path / "out")).startswith("finished  random/knn\n")
    assert not (tmp_path / "out" / "MP3").exists()


def test_of_two_sets_the_missing_one_is_named(
    tiny_arch: Arch, small_photos: Data, cpu: Machine, tmp_path: Path
) -> None:
    """RobustBench attacks one set and reads another, which is not there; a missing checkpoint comes after that."""
    away = Data(name="imagenet-c", root=str(tmp_path / "c"))
    tuned = FromCheckpoint(path=str(tmp_path / "no.pth"), kind="classifier")
    benchmark = Benchmark(
        name="b",
        subjects={"tuned": tuned},
        evaluators={"rb": RobustBench(corruptions="released", corrupted=away)},
        data=small_photos,
        machine=cpu,
    )
    lines = plan_text(Runner(benchmark, tmp_path / "out")).splitlines()
    assert lines[-1].startswith(f"  --evaluators.rb.corrupted.root  {away.root} lacks 75 of 75 folders")
    there = replace(benchmark, evaluators={"rb": RobustBench(corruptions="off")})
    lines = plan_text(Runner(there, tmp_path / "out")).splitlines()
    assert lines[-1].startswith("  --subjects.tuned.path  there is no checkpoint file")
