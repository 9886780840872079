"""Tables of segmentation: published below measured, rows that are not compared, and when a difference is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cim_bench.records.record import Record
from cim_bench.records.store import write_records
from cim_bench.reports.papers.cim_cvpr2023 import matrix, tables

Write = Callable[..., list[Record]]
Matrices = Callable[..., Any]
SLIDE, WHOLE = (("window", "slide-341"),), (("window", "whole"),)
CIM_B = {"name": "CIM-ViT-B", "method": "CIM", "arch": "vit_base_patch16_224@224", "epochs": 300.0}
MAE_B = {**CIM_B, "name": "MAE-ViT-B", "method": "MAE"}
PUBLISHED = {"training": {"iterations": 160_000, "effective_batch": 16}, "test": {"crop": 512}}


def lines(text: str, title: str) -> list[list[str]]:
    """Cells of the lines under a title."""
    _, found, rest = text.partition(f"### {title}\n")
    assert found, title
    rows = [line for line in rest.split("### ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[2:]]


def footnotes(text: str, title: str) -> dict[str, str]:
    part = text.partition(f"### {title}\n")[2].split("### ")[0]
    return dict(line[2:].split(" ", 1) for line in part.splitlines() if line.startswith("- "))


def test_published_rows_stand_below_measured_ones(
    write_segmentation: Write, street_matrices: Matrices, tmp_path: Path
) -> None:
    write_segmentation(tmp_path / "a", {SLIDE: street_matrices(), WHOLE: street_matrices(right=0.9)}, **CIM_B)
    write_segmentation(tmp_path / "b", {SLIDE: street_matrices(right=0.6)}, **MAE_B)
    write_segmentation(tmp_path / "c", {(): street_matrices()}, evaluator="segmentation_knn", **MAE_B)
    text = tables.report(tmp_path)
    assert text == (tmp_path / "segmentation.md").read_text()
    found = lines(text, "Semantic segmentation: UPerNet")
    assert [row[:4:3] for row in found[:3]] == [
        ["CIM-ViT-B", "slide-341"],
        ["MAE-ViT-B", "slide-341"],
        ["CIM-ViT-B", "whole"],
    ]
    assert [row[4].startswith("**") for row in found] == [True, *[False] * 8]  # `whole` has nothing to compare with
    assert all("[" in cell for row in found[:3] for cell in row[4:])
    assert [(row[0], row[2], row[4][:4]) for row in found[3:]] == [
        ("Supervised", "ADE20K, reported", "45.3"),
        ("MoCo v3", "ADE20K, reported", "47.2"),
        ("DINO", "ADE20K, reported", "46.8"),
        ("BEiT", "ADE20K, reported", "47.7"),
        ("MAE", "ADE20K, reported", "48.1"),
        ("CIM", "ADE20K, reported", "48.1"),
    ]
    said = footnotes(text, "Semantic segmentation: UPerNet")
    (mark,) = [mark for mark, note in said.items() if "45.6 in its paper, as quoted in microsoft/unilm#391" in note]
    assert mark in found[6][4]
    assert "Rows on facade are **not comparable** with them." in text
    assert [row[0] for row in lines(text, "Semantic segmentation: k-NN")] == ["MAE-ViT-B"]
    assert (tmp_path / "segmentation.csv").read_text().count("row,column,") == 1


def test_each_rate_of_a_sweep_is_a_row(write_segmentation: Write, street_matrices: Matrices, tmp_path: Path) -> None:
    for key, rate in (("a", 1e-4), ("b", 2e-4)):
        write_segmentation(tmp_path / key, {SLIDE: street_matrices()}, passed={"training.lr": rate}, **CIM_B)
    text = tables.report(tmp_path)
    found = lines(text, "Semantic segmentation: UPerNet")[:2]
    said = footnotes(text, "Semantic segmentation: UPerNet")
    assert [said[row[3].split()[1]] for row in found] == ["with training.lr=0.0001", "with training.lr=0.0002"]
    assert not any(row[4].startswith("**") for row in found)


def test_failed_jobs_are_told(
    write_segmentation: Write, street_matrices: Matrices, make: Callable[..., Record], tmp_path: Path
) -> None:
    write_segmentation(tmp_path / "a", {SLIDE: street_matrices()}, **CIM_B)
    write_records(tmp_path / "f", [make(key="", evaluator="segmentation_upernet", error="out of memory", **MAE_B)])
    text = tables.report(tmp_path)
    (row,) = [row for row in lines(text, "Semantic segmentation: UPerNet") if row[0] == "MAE-ViT-B"]
    assert row[4].startswith("–")
    assert footnotes(text, "Semantic segmentation: UPerNet")["¹"] == "segmentation_upernet failed: out of memory"


@pytest.fixture
def ade(write_segmentation: Write, street_matrices: Matrices, tmp_path: Path) -> Callable[..., list[str]]:
    """The line of CIM or MAE in the matrix, of a measurement on 2,000 images if nothing else is said."""

    def line(facets: Any = SLIDE, *, images: int = 2000, **fields: Any) -> list[str]:
        own = {**CIM_B, "benchmark": "ade20k", "split": "validation", "settings": PUBLISHED, **fields}
        write_segmentation(tmp_path / "job", {facets: street_matrices(images)}, **own)
        found = lines(matrix.report(tmp_path), "The paper's matrix: semantic segmentation on ADE20K")
        assert [row[1] for row in found] == ["Supervised", "MoCo v3", "DINO", "BEiT", "MAE", "CIM"]
        (row,) = [row for row in found if row[1] == own["method"]]
        return row

    return line


def test_a_difference_is_of_the_same_protocol(ade: Callable[..., list[str]]) -> None:
    row = ade()
    value = float(row[7].split()[0])
    assert row[5:7] == ["CIM-ViT-B", "48.1 ⁴"]
    assert "n=2,000" in row[7]
    assert float(row[8]) == pytest.approx(value - 48.1, abs=0.11)  # both are rounded


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": 50}, "50 images, where the validation split of ADE20K has 2,000"),
        (
            {"settings": {**PUBLISHED, "training": {"iterations": 16_000, "effective_batch": 16}}},
            "training.iterations 16000, published rows: 160000",
        ),
        ({"settings": {**PUBLISHED, "test": {"crop": 256}}}, "test.crop 256, published rows: 512"),
    ],
)
def test_another_protocol_stands_there_without_a_difference(
    ade: Callable[..., list[str]], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    row = ade(**changes)
    assert row[5] == "CIM-ViT-B"
    assert row[7][0].isdigit()
    assert row[8] == "–"
    title = "The paper's matrix: semantic segmentation on ADE20K"
    assert said in footnotes((tmp_path / "matrix.md").read_text(), title).values()


@pytest.mark.parametrize(
    "changes",
    [
        {"facets": WHOLE},
        {"benchmark": "facade"},
        {"split": "training"},
        {"evaluator": "segmentation_linear"},
        {"arch": "vit_small_patch16_224@224"},
        {"source": "reported"},
    ],
)
def test_other_sets_splits_windows_and_evaluators_do_not_stand_there(
    ade: Callable[..., list[str]], changes: dict[str, Any]
) -> None:
    assert ade(**{"images": 20, **changes})[5:] == ["–", "48.1 ⁴", "–", "–"]
