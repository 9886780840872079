"""The robustness table over folders of runs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cim_bench.records.record import Record
from cim_bench.records.store import write_records
from cim_bench.reports.papers.cim_cvpr2023.tables import report
from cim_bench.reports.stats.mce import ALEXNET_ERRORS, DAMAGES
from cim_bench.reports.tables.corruption_summaries import damage_facets

Make = Callable[..., Record]
Write = Callable[..., list[Record]]
HEADER = ["Method", "Arch", "Data", "FGSM (%) ↑", "PGD (%) ↑", "IN-C mCE (%) ↓", "IN-A (%) ↑", "IN-R (%) ↑"]
HEADER += ["IN-SK (%) ↑", "Clean top-1 (%) ↑"]


def table(text: str, title: str = "Robustness of fine-tuned models") -> list[dict[str, str]]:
    _, found, rest = text.partition(f"### {title}\n")
    assert found
    lines = [line for line in rest.split("### ")[0].splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def corruptions(make: Make, error: float | None = None, **fields: Any) -> list[Record]:
    """75 records: AlexNet's own errors (mCE 1), or one error e everywhere (mCE 1.2935 e, the mean of 1/A)."""
    return [
        make(
            **{"evaluator": "corruptions", "split": "test", **fields},
            facets=damage_facets(damage),
            value=1 - (error or ALEXNET_ERRORS[damage[0]]),
        )
        for damage in DAMAGES
    ]


@pytest.fixture
def runs(make: Make, tmp_path: Path) -> Path:
    """A subject with everything on ImageNet."""
    root, one = tmp_path / "runs", {"name": "cim", "arch": "vit_base", "n": 50_000}
    write_records(root / "f", [make(**one, key="f", evaluator="finetune", benchmark="imagenet-1k", value=0.83)])
    attacks = {"clean": 0.83, "fgsm": 0.47, "pgd": 0.22}
    write_records(
        root / "adv",
        [
            make(**one, key="adv", evaluator="adversarial", benchmark="imagenet-1k", facets={"attack": attack}, value=x)
            for attack, x in attacks.items()
        ],
    )
    write_records(root / "c", corruptions(make, **one, key="c", benchmark="imagenet-c"))
    for end, value, n in (("a", 0.3, 7_500), ("r", 0.48, 30_000), ("sketch", 0.35, 50_889)):
        shift = {**one, "n": n, "key": end, "evaluator": "shifts", "benchmark": f"imagenet-{end}", "split": "test"}
        passed = {"data.name": f"imagenet-{end}", "data.root": "/somewhere"}
        clean = (
            [make(**{**shift, "n": 10_000}, facets={"images": "clean", "classes": 200}, value=0.9)]
            if end == "a"
            else []
        )
        write_records(root / end, [make(**shift, value=value, passed=passed), *clean])
    return root


def test_the_slides_columns(runs: Path) -> None:
    text = report(runs)
    first, *published = table(text)
    assert list(first) == HEADER
    assert list(first.values())[:3] == ["cim", "vit_base", "imagenet-1k"]
    assert first["FGSM (%) ↑"] == "47.0 [46.6, 47.4] n=50,000"
    assert first["IN-C mCE (%) ↓"].split() == ["100.0", "n=50,000"]  # of records alone, without an interval
    assert first["IN-A (%) ↑"].split() == ["30.0", "[29.0,", "31.0]", "n=7,500", "¹"]
    assert first["Clean top-1 (%) ↑"].startswith("83.0 [")
    assert "- ¹ clean top-1 on the same classes: 90.0, n=10,000\n" in text
    assert "/somewhere" not in text
    assert [row["Method"] for row in published] == ["Scratch", "MAE", "CIM", "Scratch", "SimMIM", "CIM"]
    assert list(published[2].values()) == [
        "CIM", "vit_base", "ImageNet-1K, reported", "47.4", "22.7", "49.3", "30.3", "48.6", "35.3", "83.1",
    ]  # fmt: skip
    assert "not comparable** with the published" not in text.partition("### Robustness")[2]


def test_files(runs: Path, tmp_path: Path) -> None:
    text = report(runs, tmp_path / "out")
    names = ("robustness.csv", "robustness.md", "vit.csv", "vit.md")
    assert tuple(sorted(path.name for path in (tmp_path / "out").iterdir())) == names
    assert text == (tmp_path / "out" / "vit.md").read_text() + "\n" + (tmp_path / "out" / "robustness.md").read_text()
    lines = list(csv.DictReader((tmp_path / "out" / "robustness.csv").read_text().splitlines()))
    assert len(lines) == 7 * 7 + 3  # the summaries of corruptions stand below
    assert [line["key"] for line in lines[:7]] == ["adv", "adv", "c", "a", "r", "sketch", "f"]


def test_each_table_only_with_measured_rows(make: Make, tmp_path: Path) -> None:
    write_records(tmp_path / "j", [make(evaluator="adversarial", facets={"attack": "pgd"})])
    assert report(tmp_path).startswith("### Robustness")
    assert not (tmp_path / "vit.md").exists()
    write_records(tmp_path / "j", [make(evaluator="finetune")])
    assert "Robustness" not in report(tmp_path)


def test_small_sets_say_that_they_are(make: Make, tmp_path: Path) -> None:
    shift = {"evaluator": "shifts", "split": "test"}
    write_records(tmp_path / "f", [make(key="f", evaluator="finetune", value=0.6)])
    for end in ("a", "r", "sketch"):
        write_records(tmp_path / end, [make(key=end, **shift, benchmark=f"photos-{end}", value=0.2)])
    (row, *_) = table(text := report(tmp_path))
    assert row["Data"] == "photos"
    assert all(row[name].startswith("20.0 [") for name in ("IN-A (%) ↑", "IN-R (%) ↑", "IN-SK (%) ↑"))
    assert row["Clean top-1 (%) ↑"].startswith("60.0 [")
    assert "Rows on photos are **not comparable** with the published ImageNet-1K rows." in text


def test_generated_and_released_are_never_mixed(make: Make, tmp_path: Path) -> None:
    write_records(tmp_path / "r", corruptions(make, key="r", benchmark="imagenet-c"))
    generated = corruptions(make, 0.1, key="g", benchmark="imagenet-1k-c-generated", warnings=["generated on the fly"])
    write_records(tmp_path / "g", generated)
    write_records(tmp_path / "p", corruptions(make, 0.1, key="p", name="small", benchmark="photos-c-generated"))
    both, small, *published = table(text := report(tmp_path))
    names = ("IN-C mCE (%) ↓", "IN-C generated mCE (%) ↓")
    assert [both[name].replace("*", "").split()[0] for name in names] == ["100.0", "12.9"]
    assert both[names[1]].split()[-1] == "¹"
    assert [small[name].split()[0] for name in names] == ["–", "12.9"]
    assert [published[2][name] for name in names] == ["49.3", "–"]
    assert "IN-C generated: corruptions generated on the fly, not the released files" in text
    sums = table(text, "Corruptions: mCE, relative mCE and mean top-1")
    assert [row["Data"] for row in sums] == [
        "imagenet-1k-c-generated, n=100",
        "imagenet-c, n=100",
        "photos-c-generated, n=100",
    ]


def test_mce_has_the_interval_of_its_outcomes(write_job: Write, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wrong = {name: rng.random(50) < 0.5 for name in ("clean", *DAMAGES)}
    write_job(tmp_path / "c", wrong, parts=2, evaluator="corruptions", benchmark="photos-c-generated")
    (row, *_) = table(report(tmp_path))
    assert row["IN-C generated mCE (%) ↓"].count("[") == 1


def test_a_missing_severity_is_a_dash_with_a_footnote(make: Make, tmp_path: Path) -> None:
    records = [
        r
        for r in corruptions(make, benchmark="imagenet-c")
        if r.measurement and r.measurement.facets != damage_facets(("snow", 4))
    ]
    write_records(tmp_path, records)
    (row, *_) = table(text := report(tmp_path))
    assert row["IN-C mCE (%) ↓"] == "– ¹"
    assert "- ¹ 1 of 75 corruptions are missing: snow-4\n" in text


def test_partial_rows_upgrade(make: Make, write_job: Write, tmp_path: Path) -> None:
    half = corruptions(make, 0.2, key="c", benchmark="imagenet-c", partial=True, n=5_000)
    write_records(tmp_path / "CIM" / "corruptions-c" / "partial", half)
    (row, *_) = table(text := report(tmp_path))
    assert row["IN-C mCE (%) ↓"].split() == ["25.9", "n=5,000", "¹"]
    assert "- ¹ only a part of the samples was measured\n" in text
    write_records(tmp_path / "CIM" / "corruptions-c", corruptions(make, 0.1, key="c", benchmark="imagenet-c", n=50_000))
    (row, *_) = table(text := report(tmp_path))
    assert row["IN-C mCE (%) ↓"].split() == ["12.9", "n=50,000"]
    assert "only a part" not in text


def test_failures_are_dashes_where_they_belong(make: Make, tmp_path: Path) -> None:
    settings = {"data": {"name": "photos-r"}}
    write_records(tmp_path / "f", [make(key="f", evaluator="finetune")])
    write_records(tmp_path / "a", [make(key="a", evaluator="shifts", benchmark="photos-a")])
    write_records(tmp_path / "r", [make(key="", evaluator="shifts", settings=settings, error="no such folder")])
    write_records(
        tmp_path / "g", [make(key="", evaluator="corruptions", settings={"source": "generated"}, error="full")]
    )
    write_records(tmp_path / "v", [make(key="", evaluator="adversarial", error="nan")])
    (row, *_) = table(text := report(tmp_path))
    footnotes = dict(line[2:].split(" ", 1) for line in text.splitlines() if line.startswith("- "))
    said = {name: footnotes.get(cell.split()[-1]) for name, cell in row.items() if cell.startswith("–")}
    assert said == {
        "FGSM (%) ↑": "adversarial failed: nan",
        "PGD (%) ↑": "adversarial failed: nan",
        "IN-C mCE (%) ↓": None,
        "IN-C generated mCE (%) ↓": "corruptions failed: full",
        "IN-R (%) ↑": "shifts failed: no such folder",
        "IN-SK (%) ↑": None,
    }
    assert row["IN-A (%) ↑"].endswith("n=100")  # not "another job failed"


def test_only_failures_are_shown_too(make: Make, tmp_path: Path) -> None:
    write_records(tmp_path, [make(key="", evaluator="adversarial", error="out of memory")])
    assert "adversarial failed: out of memory" in report(tmp_path)


def test_further_eps_have_columns_and_other_settings_footnotes(make: Make, tmp_path: Path) -> None:
    passed = {"eps": [4 / 255, 8 / 255], "alpha": 1 / 255, "attacks": ["fgsm"]}
    attack = {"evaluator": "adversarial", "passed": passed, "settings": passed}
    records = [
        make(**attack, facets={"attack": "fgsm", "eps": 4 / 255}),
        make(**attack, facets={"attack": "fgsm", "eps": 8 / 255}),
        make(**attack, facets={"attack": "clean"}),
    ]
    write_records(tmp_path, records)
    (row, *_) = table(text := report(tmp_path))
    assert list(row)[3:6] == ["FGSM (%) ↑", "PGD (%) ↑", "FGSM eps=8/255 (%) ↑"]
    assert "adversarial with alpha=1/255, eps=4/255\n" in text
    assert "- ² adversarial with alpha=1/255\n" in text
    assert row["Clean top-1 (%) ↑"].startswith("50.0")  # nothing was fine-tuned here: what the attacks start from
    sizes = {"eps": [1 / 255, 2 / 255]}
    write_records(
        tmp_path,
        [make(evaluator="adversarial", facets={"attack": "pgd", "eps": 1 / 255}, settings=sizes, passed=sizes)],
    )
    assert "adversarial with" not in report(tmp_path)


def test_other_shifts_stand_below(make: Make, tmp_path: Path) -> None:
    for name in ("imagenet-v2", "cartoons"):
        write_records(tmp_path / name, [make(key=name, evaluator="shifts", benchmark=name, split="test")])
    failed = make(key="", name="mae", evaluator="shifts", settings={"data": {"name": "cartoons"}}, error="e")
    write_records(tmp_path / "failed", [failed])
    text = report(tmp_path)
    assert table(text)[0]["IN-V2 (%) ↑"].startswith("50.0 [")
    others = table(text, "Further shifted data sets")
    assert [row["Data"] for row in others] == ["cartoons, n=100", "cartoons"]
    assert "shifts failed: e" in text


def test_keys_choose_the_jobs(runs: Path) -> None:
    (row, *_) = table(report(runs, keys={"adv"}))
    assert row["IN-A (%) ↑"] == "–"
    assert row["PGD (%) ↑"].startswith("22.0")


def test_two_jobs_in_one_cell_are_an_error(make: Make, tmp_path: Path) -> None:
    for key, value in (("a", 0.1), ("b", 0.2)):
        write_records(tmp_path / key, corruptions(make, value, key=key, benchmark="imagenet-c"))
    with pytest.raises(ValueError, match="two records for row"):
        report(tmp_path)


CLASSIFIER: dict[str, Any] = {"evaluator": "adversarial", "checkpoint": "C", "parent": "B", "arch": "resnet50@224"}


@pytest.fixture
def tuned_twice(make: Make, tmp_path: Path) -> Path:
    """A ResNet that was fine-tuned for 100 epochs and for 300."""
    for key, epochs, value in (("f1", 100, 0.78), ("f3", 300, 0.8)):
        tuned = {"evaluator": "finetune", "checkpoint": "B", "settings": {"training": {"epochs": epochs}}}
        record = make(key=key, arch="resnet50@224", n=50_000, value=value, job="pretraining", **tuned)
        write_records(tmp_path / key, [record])
    return tmp_path


@pytest.mark.parametrize(("job", "clean"), [("f1", "78.0"), ("f3", "80.0")])
def test_after_two_fine_tunings_clean_top1_is_that_of_the_attacked_one(
    make: Make, tuned_twice: Path, job: str, clean: str
) -> None:
    write_records(tuned_twice / "v", [make(key="v", **CLASSIFIER, job=job, facets={"attack": "fgsm"}, value=0.2)])
    text = report(tuned_twice)
    (row,) = [row for row in table(text) if row["Method"] == "cim"]
    assert row["FGSM (%) ↑"].startswith("20.0 [")
    assert row["Clean top-1 (%) ↑"].startswith(f"{clean} [")
    assert "different checkpoints" not in text
    keys = {
        line["column"]: line["key"] for line in csv.DictReader((tuned_twice / "robustness.csv").open()) if line["key"]
    }
    assert keys == {"FGSM": "v", "Clean top-1": job}


def test_both_fine_tunings_in_one_row_are_an_error(make: Make, tuned_twice: Path) -> None:
    for job, attack in (("f1", "fgsm"), ("f3", "pgd")):
        write_records(
            tuned_twice / f"of-{job}", [make(key=f"of-{job}", **CLASSIFIER, job=job, facets={"attack": attack})]
        )
    with pytest.raises(ValueError, match=r"column 'Clean top-1': 'f1' and 'f3'"):
        report(tuned_twice)


@pytest.mark.parametrize(("job", "of_one"), [("f9", "–"), ("", "78.0")])
def test_clean_top1_of_an_unknown_fine_tuning(make: Make, tuned_twice: Path, job: str, of_one: str) -> None:
    write_records(tuned_twice / "v", [make(key="v", **CLASSIFIER, job=job, facets={"attack": "fgsm"}, value=0.2)])
    (row,) = [row for row in table(report(tuned_twice)) if row["Method"] == "cim"]
    assert (row["FGSM (%) ↑"][:4], row["Clean top-1 (%) ↑"]) == ("20.0", "–")
    # The only one on record is not another one's stand-in; of a classifier without a job it is what is known.
    (tuned_twice / "f3" / "records.jsonl").unlink()
    (row,) = [row for row in table(report(tuned_twice)) if row["Method"] == "cim"]
    assert (row["FGSM (%) ↑"][:4], row["Clean top-1 (%) ↑"].split()[0]) == ("20.0", of_one)


def test_two_fine_tunings_wait_for_their_attack(make: Make, tuned_twice: Path) -> None:
    other = make(key="w", **{**CLASSIFIER, "parent": "D"}, name="other", job="f5", facets={"attack": "fgsm"}, value=0.2)
    write_records(tuned_twice / "w", [other])
    assert [row["Method"] for row in table(report(tuned_twice))][:2] == ["other", "Scratch"]
    failed = {"evaluator": "adversarial", "arch": "resnet50@224", "checkpoint": "B", "job": "pretraining"}
    write_records(tuned_twice / "v", [make(key="", **failed, error="out of memory")])
    text = report(tuned_twice)
    (row,) = [row for row in table(text) if row["Method"] == "cim"]
    assert (row["FGSM (%) ↑"].split(), row["Clean top-1 (%) ↑"]) == (["–", "¹"], "–")
    assert "- ¹ adversarial failed: out of memory\n" in text


def test_a_foreign_classifier_has_the_clean_top1_of_its_attacks(make: Make, tmp_path: Path) -> None:
    foreign = {"evaluator": "adversarial", "checkpoint": "C", "name": "foreign", "key": "v"}
    values = (("clean", 0.7), ("fgsm", 0.2))
    write_records(tmp_path / "v", [make(**foreign, facets={"attack": name}, value=x) for name, x in values])
    write_records(tmp_path / "c", corruptions(make, key="c", name="foreign", checkpoint="C", benchmark="photos-c"))
    (row,) = [row for row in table(report(tmp_path)) if row["Method"] == "foreign"]
    assert row["Clean top-1 (%) ↑"].startswith("70.0 [")
    # Beside fine-tuned ones the column is theirs: a gap, and not a number of another protocol.
    write_records(tmp_path / "f", [make(key="f", evaluator="finetune", checkpoint="B", value=0.6)])
    text = report(tmp_path)
    rows = {row["Method"]: row for row in table(text)}
    assert rows["cim"]["Clean top-1 (%) ↑"].startswith("60.0 [")
    assert (rows["foreign"]["FGSM (%) ↑"][:4], rows["foreign"]["Clean top-1 (%) ↑"]) == ("20.0", "–")
    sums = table(text, "Corruptions: mCE, relative mCE and mean top-1")
    assert [row["Relative mCE (%) ↓"] for row in sums] == ["–"]
