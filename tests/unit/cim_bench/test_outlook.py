"""What --plan prints: states, what is missing, which checkpoints to give and where they are published."""

from __future__ import annotations

from pathlib import Path

from cim_bench.evals.knn import KNN
from cim_bench.outlook import outlook
from cim_bench.recipe import Arch, Benchmark, Data, FromCheckpoint, Machine, RandomInit
from cim_bench.runner import Runner


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
    text = outlook(Runner(benchmark, tmp_path / "out")).splitlines()
    assert text[:2] == ["missing   random/knn", "1 jobs: 1 missing"]
    assert text[4].startswith("  --data.root  no split 'train'")
    assert "nowhere" in text[4]
    assert text[4].endswith("[1 job: knn]")
    assert text[-2:] == [
        "  --subjects.MAE-ViT-B.path FILE  somewhere.pth",
        "  --subjects.MP3.path FILE        not published",
    ]
    there = Benchmark(**{**vars(benchmark), "data": small_photos})
    assert outlook(Runner(there, tmp_path / "out")).startswith("to do     random/knn\n1 jobs: 1 to do")
    Runner(there, tmp_path / "out").run()
    assert outlook(Runner(there, tmp_path / "out")).startswith("finished  random/knn\n")
    assert not (tmp_path / "out" / "MP3").exists()
