"""The paper's ViT table over a folder of runs."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cim_bench.record import Record, write_records
from cim_bench.reports.papers.cim_cvpr2023 import VIT, render, report

Make = Callable[..., Record]


@pytest.fixture
def runs(make: Make, tmp_path: Path) -> Path:
    """Two subjects, all three evaluators, one of them failed."""
    for place, name in enumerate(("random", "cim")):
        subject = {"name": name, "method": name, "epochs": 20.0 if name == "cim" else None, "n": 720}
        knn = [make(**subject, key=f"{name}-knn", variant=f"k={k}", value=0.3 + place / 10 + k / 1e4) for k in (10, 20)]
        write_records(tmp_path / "runs" / f"{name}-knn", knn)
        failed = make(**subject, key=f"{name}-linear", evaluator="linear_probe", error="loss is nan at step 3")
        linear = make(**subject, key=f"{name}-linear", evaluator="linear_probe", value=0.463)
        write_records(tmp_path / "runs" / f"{name}-linear", [linear if name == "cim" else failed])
        tuned = make(**subject, key=f"{name}-tune", evaluator="finetune", value=0.6, passed={"epochs": 5})
        write_records(tmp_path / "runs" / f"{name}-tune", [tuned])
    return tmp_path / "runs"


def test_rows_and_cells(runs: Path) -> None:
    lines = [[part.strip() for part in line.split("|")[1:-1]] for line in render(runs).splitlines() if "|" in line]
    header, _, *rows = lines
    titles = ["Method", "Arch", "Data", "Pretext", "Epochs"]
    assert header == [*titles, "k-NN top-1 (%) ↑", "Linear top-1 (%) ↑", "Fine-tune top-1 (%) ↑"]
    assert rows[0][:5] == ["cim", "vit_tiny", "photos, n=720", "CIM", "20"]
    assert rows[1][:5] == ["random", "vit_tiny", "photos, n=720", "random init", "–"]
    assert rows[0][5].startswith("**40.2** [")  # k=20, not k=10
    assert rows[1][6].split() == ["–", "²"]
    assert len(rows) == 2 + 15
    assert rows[-1] == ["CIM", "vit_base", "ImageNet-1K, reported", "CIM", "300", "–", "–", "83.1"]


def test_text_around_the_table(runs: Path) -> None:
    text = render(runs)
    above, below = text.split("| Method")[0], text.split("\n\n")[-1]
    assert "small data set photos" in above
    assert "**not comparable** with the published ImageNet-1K rows" in above
    assert "CVPR 2023" in above
    assert below.splitlines()[0] == "- ¹ finetune with epochs=5"
    assert "linear_probe failed: loss is nan at step 3" in below
    assert "dagger" in below


def test_report_writes_both_files(runs: Path, tmp_path: Path) -> None:
    text = report(runs)
    assert (runs / "vit.md").read_text() == text == render(runs)  # a second report reads no report
    report(runs, tmp_path / "new" / "out")
    assert (tmp_path / "new" / "out" / "vit.csv").read_text() == (runs / "vit.csv").read_text()
    report(runs / "cim-knn" / "records.jsonl")
    assert (runs / "cim-knn" / "vit.md").exists()
    lines = list(csv.DictReader((runs / "vit.csv").read_text().splitlines()))
    assert len(lines) == 17 * len(VIT.columns)
    assert [line["key"] for line in lines[:3]] == ["cim-knn", "cim-linear", "cim-tune"]


def test_on_imagenet_nothing_claims_a_small_data_set(make: Make, tmp_path: Path) -> None:
    write_records(tmp_path, [make(benchmark="imagenet-1k", variant="k=20")])
    text = render(tmp_path)
    assert "small data set" not in text
    assert "| imagenet-1k, n=100 " in text


def test_a_long_architecture_moves_into_a_footnote(make: Make, tmp_path: Path) -> None:
    arch = "vit_small@64,depth=6,num_heads=3"
    records = [make(arch=arch, variant="k=20", split="test"), make(key="k2", arch="vit_small@64", variant="k=20")]
    write_records(tmp_path, records)
    text = report(tmp_path)
    assert "| cim     | vit_small@64 ¹ | photos (test), n=100  |" in text
    assert "| cim     | vit_small@64   | photos, n=100         |" in text
    assert "- ¹ with depth=6, num_heads=3\n" in text
    assert "vit_small@64 (with depth=6, num_heads=3) / photos (test)" in (tmp_path / "vit.csv").read_text()


def test_no_measured_record_is_an_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no measured .* record in .*; run"):
        report(tmp_path)
    write_records(tmp_path, [make(evaluator="adversarial")])
    with pytest.raises(ValueError, match="no measured"):
        report(tmp_path)
    assert not (tmp_path / "vit.md").exists()
    with pytest.raises(FileNotFoundError):
        report(tmp_path / "absent")


def test_reports_import_no_torch() -> None:
    code = (
        "import sys, cim_bench.reports.papers.cim_cvpr2023\n"
        "print([name for name in ('torch', 'timm', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
