"""Numbers that no declared table shows still get a table."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from cim_bench.records.record import Record
from cim_bench.records.store import write_records
from cim_bench.reports.papers.cim_cvpr2023.tables import report

Make = Callable[..., Record]


def lines_of(text: str) -> list[list[str]]:
    return [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_an_evaluator_of_another_package_has_a_table_for_each_metric(make: Make, tmp_path: Path) -> None:
    theirs = {"evaluator": "nearest_mean"}
    values = {("top1", "cls"): 0.25, ("top1", "mean"): 0.5, ("map_iou", None): 0.125}
    records = [
        make(**theirs, metric=metric, facets={"theirs.token": token} if token else {}, value=value)
        for (metric, token), value in values.items()
    ]
    write_records(tmp_path / "a", records)
    write_records(tmp_path / "b", [make(**theirs, name="mae", method="MAE", key="", error="loss is nan")])
    top1, iou = report(tmp_path).split("### ")[1:]
    assert top1.startswith("nearest_mean: top1\n")
    header, _, cim, mae = lines_of(top1)
    assert header[5:] == ["cls (%) ↑", "mean (%) ↑"]
    assert [cell.split()[0] for cell in cim[5:]] == ["25.0", "50.0"]
    assert [cell.split() for cell in mae[5:]] == [["–", "¹"]] * 2
    assert "- ¹ nearest_mean failed: loss is nan" in top1
    assert lines_of(iou)[0][5:] == ["map_iou (%) ↑"]
    assert lines_of(iou)[2][5] == "12.5"
    cells = list(csv.DictReader((tmp_path / "others.csv").read_text().splitlines()))
    assert [float(cell["value"]) for cell in cells if cell["value"]] == [0.25, 0.5, 0.125]
    assert not (tmp_path / "vit.md").exists()


def test_two_settings_of_one_protocol_are_two_columns(make: Make, tmp_path: Path) -> None:
    """And never keep the declared tables from being printed."""
    for key, value in (("a", 0.25), ("b", 0.5)):
        record = make(key=key, evaluator="nearest_mean", passed={"shift": key}, value=value)
        write_records(tmp_path / key, [record])
    write_records(tmp_path / "knn", [make(key="k", facets={"k": 20})])
    vit, other = report(tmp_path).split("### ")[1:]
    assert vit.startswith("Top-1 accuracy")
    header, _, row = lines_of(other)
    assert header[5:] == ["top1, shift=a (%) ↑", "top1, shift=b (%) ↑"]
    assert [cell.split()[0] for cell in row[5:]] == ["25.0", "50.0"]
    assert "nearest_mean with" not in other  # the header says so


def test_what_a_declared_table_shows_is_not_shown_twice(make: Make, tmp_path: Path) -> None:
    write_records(tmp_path / "a", [make(facets={"k": 20})])
    write_records(tmp_path / "b", [make(key="b", evaluator="adversarial", facets={"attack": "fgsm"})])
    report(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.md")) == ["robustness.md", "vit.md"]


def test_other_numbers_of_neighbours_have_columns_where_nobody_has_the_usual(make: Make, tmp_path: Path) -> None:
    write_records(tmp_path / "a", [make(facets={"k": k}, value=k / 100) for k in (5, 7)])
    header, _, row, *_ = lines_of(report(tmp_path))
    assert header[5:7] == ["k-NN top-1, k=5 (%) ↑", "k-NN top-1, k=7 (%) ↑"]
    assert [cell.split()[0] for cell in row[5:7]] == ["5.0", "7.0"]
    write_records(tmp_path / "b", [make(key="b", name="mae", method="MAE", facets={"k": 20}, value=0.2)])
    header, _, *rows = lines_of(report(tmp_path))
    assert header[5:7] == ["k-NN top-1 (%) ↑", "Linear top-1 (%) ↑"]
    assert [row[5].split()[0] for row in rows if row[5] != "–"] == ["20.0"]
