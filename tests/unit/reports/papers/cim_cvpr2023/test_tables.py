"""The paper's ViT table over a folder of runs."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cim_bench.cli.main import main
from cim_bench.common.errors import IncompleteError
from cim_bench.records.record import Record
from cim_bench.records.store import write_records
from cim_bench.reports.papers.cim_cvpr2023.tables import VIT, render, report

Make = Callable[..., Record]


@pytest.fixture
def runs(make: Make, tmp_path: Path) -> Path:
    """Two subjects, all three evaluators, one of them failed."""
    for place, name in enumerate(("random", "cim")):
        subject = {"name": name, "method": name, "epochs": 20.0 if name == "cim" else None, "n": 720}
        knn = [make(**subject, key=f"{name}-knn", facets={"k": k}, value=0.3 + place / 10 + k / 1e4) for k in (10, 20)]
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
    write_records(tmp_path, [make(benchmark="imagenet-1k", facets={"k": 20})])
    text = render(tmp_path)
    assert "small data set" not in text
    assert "| imagenet-1k, n=100 " in text


def test_a_long_architecture_moves_into_a_footnote(make: Make, tmp_path: Path) -> None:
    arch = "vit_small@64,depth=6,num_heads=3"
    records = [make(arch=arch, facets={"k": 20}, split="test"), make(key="k2", arch="vit_small@64", facets={"k": 20})]
    write_records(tmp_path, records)
    text = report(tmp_path)
    assert "| cim     | vit_small@64 ¹ | photos (test), n=100  |" in text
    assert "| cim     | vit_small@64   | photos, n=100         |" in text
    assert "- ¹ with depth=6, num_heads=3\n" in text
    assert "vit_small@64 (with depth=6, num_heads=3) / photos (test)" in (tmp_path / "vit.csv").read_text()


def test_no_measured_record_is_an_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no measured number in .* that a table shows; run"):
        report(tmp_path)
    write_records(tmp_path, [make(evaluator="adversarial")])
    with pytest.raises(ValueError, match="no measured"):
        report(tmp_path)
    assert not (tmp_path / "vit.md").exists()
    with pytest.raises(FileNotFoundError):
        report(tmp_path / "absent")


def test_reports_import_no_torch() -> None:
    code = (
        "import sys, cim_bench.reports.papers.cim_cvpr2023.tables\n"
        "print([name for name in ('torch', 'timm', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def resnets(make: Make, tmp_path: Path) -> Path:
    """A small ResNet, frozen and fine-tuned for 4 epochs, and a ResNet-50 that was fine-tuned twice on ImageNet."""
    root = tmp_path / "runs"
    small = {"name": "small", "method": "CIM", "arch": "resnet10t@64", "epochs": 9.0, "checkpoint": "S", "n": 450}
    tuned = {"evaluator": "finetune", "settings": {"training": {"epochs": 4}}, "passed": {"training.epochs": 4}}
    write_records(root / "a", [make(**small, key="a", facets={"k": 20}, value=0.5)])
    write_records(root / "b", [make(**small, **tuned, key="b", value=0.6)])
    large = {"name": "CIM-R50", "method": "CIM", "arch": "resnet50@224", "epochs": 300.0, "checkpoint": "L"}
    for key, epochs, value in (("c", 100, 0.78), ("d", 300, 0.8)):
        passed = {"training.epochs": epochs, "mixup": 0.1}
        place = {"evaluator": "finetune", "benchmark": "imagenet-1k", "n": 50_000, "passed": passed}
        record = make(**large, **place, key=key, value=value, settings={"training": {"epochs": epochs}, "mixup": 0.1})
        write_records(root / key, [record])
    return root


def test_resnets_have_a_table_with_a_column_for_each_fine_tuning(resnets: Path) -> None:
    text = report(resnets)
    assert not (resnets / "vit.md").exists()
    assert text == (resnets / "cnn.md").read_text()
    lines = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = lines
    tuned = [f"Fine-tune top-1, {epochs} epochs (%) ↑" for epochs in (4, 100, 300)]
    assert header[5:] == ["k-NN top-1 (%) ↑", "Linear top-1 (%) ↑", *tuned]
    assert rows[0][:5] == ["CIM-R50", "resnet50@224", "imagenet-1k, n=50,000", "CIM", "300"]
    assert [cell.split("[")[0].strip() for cell in rows[0][5:]] == ["–", "–", "–", "78.0", "80.0"]
    assert rows[1][:5] == ["small", "resnet10t@64", "photos, n=450", "CIM", "9"]
    assert [cell.split("[")[0].strip() for cell in rows[1][5:]] == ["50.0", "–", "60.0", "–", "–"]
    published = {row[0]: row[4:] for row in rows[2:]}
    assert len(published) == len(rows[2:]) == 9
    assert published["RSB A3"] == ["–", "–", "–", "–", "78.1", "–"]
    assert published["CIM"] == ["300", "–", "–", "–", "78.6", "80.1"]
    assert published["BYOL"] == ["400", "–", "–", "–", "–", "80.0"]
    assert "A3 for 100 epochs, A2 for 300" in text
    assert "Those on the small data set photos are **not comparable** with the published" in text
    assert "- ¹ finetune with mixup=0.1\n" in text  # epochs are in the header


def test_vits_and_resnets_are_in_two_tables(make: Make, resnets: Path) -> None:
    write_records(resnets / "v", [make(key="v", arch="vit_small@64", facets={"k": 20})])
    vit, cnn = report(resnets).split("### ")[1:]
    assert "resnet" not in vit
    assert "vit" not in cnn
    assert (resnets / "cnn.csv").read_text().count("\n") == 1 + (2 + 9) * 5


def test_a_failed_fine_tuning_of_a_resnet_is_in_its_column(make: Make, resnets: Path) -> None:
    failed = {"evaluator": "finetune", "settings": {"training": {"epochs": 300}}, "error": "loss is nan"}
    subject = {"name": "small", "method": "CIM", "arch": "resnet10t@64", "epochs": 9.0}
    write_records(resnets / "f", [make(key="", **subject, **failed)])
    report(resnets)
    cells = list(csv.DictReader((resnets / "cnn.csv").read_text().splitlines()))
    said = [line["column"] for line in cells if "loss is nan" in line["footnotes"]]
    assert said == ["Fine-tune top-1, 300 epochs"]


def test_settings_of_the_pretext_are_a_footnote(make: Make, tmp_path: Path) -> None:
    plain = {"method": "CIM", "pretext_passed": {"max_degrees": 0, "photometric": False}}
    write_records(tmp_path / "a", [make(**plain, facets={"k": 20})])
    write_records(tmp_path / "b", [make(**plain, key="b", evaluator="adversarial", facets={"attack": "fgsm"})])
    vit, robust = report(tmp_path).split("### ")[1:]
    assert "| cim     | vit_tiny  | photos, n=100         | CIM ¹ " in vit
    assert "| cim ¹   | vit_tiny " in robust
    assert all("- ¹ CIM with max_degrees=0, photometric=False\n" in text for text in (vit, robust))


def test_a_damaged_file_costs_its_own_rows_and_a_contradiction_its_own_table(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "good", [make(facets={"k": 20})])
    write_records(tmp_path / "other", [make(key="o", evaluator="mypkg", benchmark="photos")])
    write_records(tmp_path / "bad", [make(key="b", name="bad", facets={"k": 20})])
    damaged = tmp_path / "bad" / "records.jsonl"
    damaged.write_text(damaged.read_text() + '{"key": ')
    for key in ("a", "b"):
        record = make(key=key, arch="resnet50", facets={"k": 20}, value=0.1 if key == "a" else 0.2)
        write_records(tmp_path / f"cnn-{key}", [record])
    assert main(["report", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "| cim     | vit_tiny" in printed.out
    assert "### mypkg: top1" in printed.out
    assert "bad" not in printed.out
    first, second = printed.err.splitlines()
    assert first.startswith(f"cim-bench: {damaged}, line 2: ")
    assert first.endswith("; delete the file and run its job again")
    assert second.startswith("cim-bench: cnn.md is not made: two records for row 'cim / resnet50")
    assert sorted(path.name for path in tmp_path.glob("*.md")) == ["others.md", "vit.md"]
    assert main(["report", str(tmp_path), "--tables", "matrix"]) == 1
    assert (tmp_path / "matrix.md").exists()
    assert str(damaged) in capsys.readouterr().err


def test_tables_that_cannot_be_written_are_printed(make: Make, tmp_path: Path) -> None:
    write_records(tmp_path / "runs", [make(facets={"k": 20})])
    (tmp_path / "file").touch()
    with pytest.raises(IncompleteError, match=r"cannot write .*file/out/vit\.md") as caught:
        report(tmp_path / "runs", tmp_path / "file" / "out")
    assert "| cim     | vit_tiny" in caught.value.made


def test_a_column_in_which_nothing_can_be_told_from_a_guess_says_so(make: Make, tmp_path: Path) -> None:
    """Printed and in the CSV, of ViTs, attacks and the matrix; 24 of 1,000 where a guess has 20 is [1.6, 3.5]."""
    subject = {"name": "mae", "method": "MAE", "arch": "vit_base_patch16_224@224", "benchmark": "imagenet-1k"}
    values = {
        "finetune": ({}, 0.024),
        "adversarial": ({"attack": "fgsm", "eps": 1 / 255}, 0.024),
        "knn": ({"k": 20}, 0.4),
    }
    for evaluator, (facets, value) in values.items():
        own: dict[str, Any] = {"evaluator": evaluator, "facets": facets, "value": value, "n": 1000, "chance": 0.02}
        own["settings"] = {"eps": [1 / 255]} if evaluator == "adversarial" else {}
        write_records(tmp_path / evaluator, [make(**subject, **own, key=evaluator)])
    sentence = "can be told from a guess, which has 2 %: they rank nothing"
    text = report(tmp_path)
    assert "Fine-tune top-1 (%) ↑ ¹" in text
    assert "| FGSM (%) ↑ ¹" in text
    assert text.count(f"- ¹ no number measured on imagenet-1k {sentence}") == 2
    assert [
        line for line in (tmp_path / "vit.csv").read_text().splitlines() if "Fine-tune" in line and sentence in line
    ]
    assert main(["report", str(tmp_path), "--tables", "matrix"]) == 0
    assert f"no number measured {sentence}" in (tmp_path / "matrix.md").read_text()
