"""Two subjects on the same images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cim_bench.cli import main as cli
from cim_bench.records.confusions import miou
from cim_bench.records.record import Record
from cim_bench.records.store import write_records
from cim_bench.reports.compare import compare as compare_subjects
from cim_bench.reports.read.confusions import read_image_sums
from cim_bench.reports.stats.mce import DAMAGES, image_mce
from cim_bench.reports.stats.paired import paired_bootstrap
from cim_bench.reports.stats.sums import paired_bootstrap_of_sums

Write = Callable[..., list[Record]]


def compare(a: Path, b: Path, seed: int = 0) -> str:
    return compare_subjects(a, b, seed).markdown()


def wrong(both: int, only_a: int, only_b: int, neither: int) -> tuple[Any, Any]:
    """Misclassified by A, and by B: both right, only A right, only B right, neither."""
    counts = (both, only_a, only_b, neither)
    return np.repeat([False, False, True, True], counts), np.repeat([False, True, False, True], counts)


def cells(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


@pytest.fixture
def subjects(write_job: Write, tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "CIM", tmp_path / "random"
    for folder, flags in zip((a, b), wrong(50, 30, 10, 10), strict=True):
        write_job(folder / "finetune-1", {"": flags}, evaluator="finetune", name=folder.name)
    return a, b


def test_by_hand(subjects: tuple[Path, Path]) -> None:
    row = cells(compare(*subjects), "finetune")
    assert row[:6] == ["finetune", "photos", "–", "100", "80.0", "60.0"]
    one, two = wrong(50, 30, 10, 10)
    low, high = paired_bootstrap(~one, ~two, seed=0)
    assert row[6] == f"+20.0 [{100 * low:+.1f}, {100 * high:+.1f}]"
    assert row[7:9] == ["30", "10"]
    assert row[9] == "0.002"  # binomtest(10, 40): 0.0022
    swapped = cells(compare(*reversed(subjects)), "finetune")
    assert swapped[6].startswith("-20.0 [")


def test_the_result_is_typed(subjects: tuple[Path, Path]) -> None:
    found = compare_subjects(*subjects)
    (row,) = found.accuracies
    assert (row.evaluator, row.benchmark, row.facets, row.name, row.n) == ("finetune", "photos", {}, "", 100)
    assert (row.a, row.b, row.difference, row.only_a, row.only_b) == (0.8, 0.6, 0.2, 30, 10)
    one, two = wrong(50, 30, 10, 10)
    assert row.interval == paired_bootstrap(~one, ~two, seed=0)
    assert row.p == pytest.approx(0.0022214, rel=1e-4)
    assert (found.mces, found.footnotes) == ((), ())


def test_other_sizes_of_an_attack_are_no_pair(write_job: Write, tmp_path: Path) -> None:
    """Both are called pgd, as each is the first of its protocol."""
    flags = wrong(1, 1, 1, 1)[0]
    for name, eps in (("a", 1 / 255), ("b", 2 / 255)):
        attack = {"evaluator": "adversarial", "settings": {"eps": [eps]}, "passed": {"eps": [eps]}}
        keys = (("attack", "clean"),), (("attack", "pgd"), ("eps", eps))
        write_job(tmp_path / name / "adv", dict.fromkeys(keys, flags), **attack)
    found = compare_subjects(tmp_path / "a", tmp_path / "b")
    assert [row.name for row in found.accuracies] == ["clean"]
    assert found.footnotes == ("adversarial photos: A and B differ in eps",)


def test_images_are_joined_by_id(subjects: tuple[Path, Path]) -> None:
    file = subjects[1] / "finetune-1" / "outcomes" / "images-000.parquet"
    before = compare(*subjects)
    pq.write_table(pq.read_table(file).sort_by([("id", "descending")]), file)
    assert compare(*subjects) == before


def test_mce_is_paired_by_image(write_job: Write, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flags = [{name: rng.random(60) < share for name in DAMAGES} for share in (0.5, 0.6)]
    for name, found in zip("ab", flags, strict=True):
        write_job(tmp_path / name / "c-1", found, parts=2, evaluator="corruptions", benchmark="photos-c-generated")
    text = compare(tmp_path / "a", tmp_path / "b")
    assert len([line for line in text.splitlines() if line.startswith("| corruptions ")]) == 75
    row = cells(text, "photos-c-generated")
    values = [image_mce(found).mean() for found in flags]
    assert row[:4] == ["photos-c-generated", "60", f"{100 * values[0]:.1f}", f"{100 * values[1]:.1f}"]
    assert row[4].startswith(f"{100 * (values[0] - values[1]):+.1f} [")


def test_other_images_or_labels_are_refused(subjects: tuple[Path, Path], write_job: Write) -> None:
    file = subjects[1] / "finetune-1" / "outcomes" / "images-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(1), file)
    with pytest.raises(ValueError, match=r"not on the same images, 1 differ, e\.g\. val/00000\.png"):
        compare(*subjects)
    pq.write_table(table.set_column(1, "label", pa.array([7, *table["label"].to_pylist()[1:]])), file)
    with pytest.raises(ValueError, match=r"give 1 images different labels, e\.g\. val/00000\.png"):
        compare(*subjects)


def test_an_unfinished_job_is_said_to_be_one(write_job: Write, tmp_path: Path) -> None:
    one, two = wrong(50, 30, 10, 10)
    write_job(tmp_path / "a" / "j", {"": one}, evaluator="shifts", benchmark="photos-a")
    write_job(tmp_path / "b" / "j", {"": two}, parts=2, evaluator="shifts", benchmark="photos-a", partial=True)
    with pytest.raises(ValueError, match=r"50 differ, .*; one is not finished"):
        compare(tmp_path / "a", tmp_path / "b")


def test_what_is_left_out_is_said(subjects: tuple[Path, Path], make: Callable[..., Record], write_job: Write) -> None:
    for folder, version in zip(subjects, (1, 2), strict=True):
        write_job(
            folder / "knn", {(("k", 20),): wrong(1, 1, 1, 1)[0]}, evaluator="knn", version=version, name=folder.name
        )
        write_records(folder / "linear", [make(evaluator="linear_probe", key="l")])
        records = write_job(
            folder / "adv",
            {(("attack", "pgd"),): wrong(1, 1, 1, 1)[0]},
            evaluator="adversarial",
            passed={"steps": version},
        )
        write_records(
            folder / "adv", [*records, make(key="x", evaluator="adversarial", facets={"attack": "fgsm"}, n=4)]
        )
    text = compare(*subjects)
    assert "- left out: knn photos, versions 1 and 2 of the protocol" in text
    assert f"- left out: linear_probe photos, {subjects[0] / 'linear'} keeps no outcomes" in text
    assert "- left out: adversarial photos fgsm, the outcomes kept are not those behind the records" in text
    assert "- adversarial photos: A and B differ in steps" in text


def test_bad_folders_are_one_sentence(subjects: tuple[Path, Path], write_job: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent is no folder; give one of a subject"):
        compare(subjects[0], tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no measured top1 .* in .*empty"):
        compare(tmp_path / "empty", subjects[1])
    write_job(tmp_path / "c" / "knn", {(("k", 20),): wrong(1, 1, 1, 1)[0]}, evaluator="knn")
    with pytest.raises(ValueError, match="no outcomes of the same evaluation to compare"):
        compare(subjects[0], tmp_path / "c")
    write_job(subjects[0] / "finetune-2", {"": wrong(1, 1, 1, 1)[0]}, evaluator="finetune")
    with pytest.raises(ValueError, match="two jobs for finetune on photos, finetune-1 and finetune-2"):
        compare(*subjects)


def test_command(subjects: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(subjects[0]), str(subjects[1]), "--seed", "3"]) == 0
    assert capsys.readouterr().out == compare(*subjects, seed=3) + "\n"
    assert cli.main(["compare", str(subjects[0]), str(subjects[0] / "missing")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_damaged_is_named_and_the_rest_is_compared(
    subjects: tuple[Path, Path], write_job: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    for subject in subjects:
        write_job(subject / "knn-1", {(("k", 20),): wrong(1, 1, 1, 1)[0]}, evaluator="knn")
        write_job(subject / "linear-1", {"": wrong(1, 1, 1, 1)[0]}, evaluator="linear_probe")
    damaged = subjects[1] / "knn-1" / "records.jsonl"
    damaged.write_text("{")
    torn = next((subjects[0] / "linear-1").rglob("*.parquet"))
    torn.write_bytes(torn.read_bytes()[:50])
    assert cli.main(["compare", str(subjects[0]), str(subjects[1])]) == 1
    printed = capsys.readouterr()
    assert "| finetune" in printed.out
    assert "| linear_probe" not in printed.out
    lines = printed.err.splitlines()
    assert [any(str(file) in line for line in lines) for file in (damaged, torn)] == [True, True]
    assert len(lines) == 2


@pytest.fixture
def segmenters(write_segmentation: Write, street_matrices: Callable[..., Any], tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "CIM", tmp_path / "random"
    for folder, right in ((a, 0.75), (b, 0.7)):
        write_segmentation(folder / "seg-1", {(("window", "whole"),): street_matrices(right=right)}, name=folder.name)
    return a, b


def test_segmentation_is_paired_by_image(segmenters: tuple[Path, Path]) -> None:
    found = compare_subjects(*segmenters)
    assert found.accuracies == ()
    assert [row.metric for row in found.sums] == ["miou", "miou_present", "mean_accuracy", "pixel_accuracy"]
    row = found.sums[0]
    assert (row.evaluator, row.benchmark, row.name, row.n) == ("segmentation_upernet", "facade", "whole", 30)
    sums = [read_image_sums(folder / "seg-1", "seg-1").by_facets[(("window", "whole"),)] for folder in segmenters]
    expected = paired_bootstrap_of_sums(*sums, miou, seed=0)
    assert (row.difference, *row.interval, row.p) == expected
    assert row.a - row.b == pytest.approx(row.difference)
    (line, *_) = [text.split("|")[1:-1] for text in found.markdown().splitlines() if "| miou " in text]
    line = [cell.strip() for cell in line]
    assert line[:5] == ["segmentation_upernet", "facade", "whole", "miou", "30"]
    assert line[8] == "<0.001"
    assert compare_subjects(*reversed(segmenters)).sums[0].difference == pytest.approx(-row.difference)


def test_other_images_masks_or_matrices_are_no_pair(
    segmenters: tuple[Path, Path], write_segmentation: Write, street_matrices: Callable[..., Any]
) -> None:
    key = (("window", "whole"),)
    write_segmentation(segmenters[1] / "seg-1", {key: street_matrices(29)})
    with pytest.raises(ValueError, match=r"not on the same images, 1 differ, e\.g\. 00029\.jpg"):
        compare(*segmenters)
    write_segmentation(segmenters[1] / "seg-1", {key: street_matrices(seed=1)})
    with pytest.raises(ValueError, match=r"different masks of 30 images, e\.g\. 00000\.jpg"):
        compare(*segmenters)
    write_segmentation(segmenters[1] / "seg-1", {key: street_matrices(classes=3)})
    with pytest.raises(ValueError, match="have not the same classes"):
        compare(*segmenters)
    records = write_segmentation(segmenters[1] / "seg-1", {key: street_matrices(right=0.4)})
    write_segmentation(segmenters[1] / "seg-1", {key: street_matrices(right=0.5)})
    write_records(segmenters[1] / "seg-1", records)
    with pytest.raises(ValueError, match="whole miou, the confusion matrices kept are not those behind the records"):
        compare(*segmenters)


def test_sweeps_are_paired_by_their_settings(
    write_segmentation: Write, street_matrices: Callable[..., Any], tmp_path: Path
) -> None:
    for name, rates in (("a", (1, 2)), ("b", (2, 3))):
        for rate in rates:
            folder = tmp_path / name / f"seg-{rate}"
            write_segmentation(folder, {(): street_matrices(seed=rate)}, passed={"lr": rate})
    found = compare_subjects(tmp_path / "a", tmp_path / "b")
    assert {row.evaluator for row in found.sums} == {"segmentation_upernet with lr=2"}
    assert found.footnotes == tuple(
        f"left out: segmentation_upernet with lr={rate} facade, of one of the two alone" for rate in (1, 3)
    )
