"""The paper's matrix: published figures, and beside them what was measured for the same row."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cim_bench.published_protocols import RSB
from cim_bench.records.record import Record
from cim_bench.records.store import write_records
from cim_bench.reports.papers.cim_cvpr2023.matrix import report
from cim_bench.reports.stats.mce import ALEXNET_ERRORS, DAMAGES
from cim_bench.reports.tables.corruption_summaries import damage_facets

Make = Callable[..., Record]
TOP1 = "top-1 after fine-tuning"
ROBUST = "robustness of fine-tuned models"
ATTACKS = ("FGSM", "PGD", "IN-C mCE", "IN-A", "IN-R", "IN-SK")


def matrix(text: str, title: str = TOP1) -> list[list[str]]:
    """Cells of the lines under the header."""
    _, found, rest = text.partition(f"### The paper's matrix: {title}\n")
    assert found
    lines = [line for line in rest.split("### ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def footnotes(text: str, title: str = TOP1) -> dict[str, str]:
    """Footnotes by their mark."""
    part = text.partition(f"### The paper's matrix: {title}\n")[2].split("### ")[0]
    return dict(line[2:].split(" ", 1) for line in part.splitlines() if line.startswith("- "))


def tuned(make: Make, folder: Path, key: str, tuning: int, value: float, **fields: Any) -> None:
    """A fine-tuning on ImageNet-1K."""
    own: dict[str, Any] = {
        "evaluator": "finetune",
        "benchmark": "imagenet-1k",
        "n": 50_000,
        "settings": {"training": {"epochs": tuning}},
    }
    write_records(folder / key, [make(**{**own, "key": key, "value": value, **fields})])


def of(lines: list[list[str]], arch: str, method: str) -> list[list[str]]:
    return [line[3:] for line in lines if line[:2] == [arch, method]]


CIM_B: Mapping[str, Any] = {"name": "CIM-ViT-B", "method": "CIM", "arch": "vit_base_patch16_224@224", "epochs": 300.0}
CIM_R50: Mapping[str, Any] = {**CIM_B, "name": "CIM-R50", "arch": "resnet50@224"}
MAE_B: Mapping[str, Any] = {**CIM_B, "name": "MAE-ViT-B", "method": "mae", "epochs": 800.0}


def test_nothing_measured_is_all_dashes(tmp_path: Path) -> None:
    text = report(tmp_path)
    lines, robust = matrix(text), matrix(text, ROBUST)
    assert text == (tmp_path / "matrix.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matrix.csv", "matrix.md"]
    assert [line[0] for line in lines] == ["vit_small"] * 7 + ["vit_base"] * 8 + ["resnet50"] * 11
    vits = ["Scratch", "MoCo v3", "DINO", "BEiT", "SimMIM", "MAE", "CIM"]
    cnns = ["RSB A3", "SimMIM", "CIM", "RSB A2", "SimSiam", "MoCo v2", "SimCLR", "BYOL", "SwAV", "SimMIM", "CIM"]
    assert [line[1] for line in lines] == [*vits, "Scratch", "MP3", *vits[1:], *cnns]
    assert {tuple(line[7:]) for line in lines} == {("–", "–")}
    assert of(lines, "vit_base", "MP3") == [["100/–", "–/–", "–", "81.9", "–", "–"]]
    assert [line[:3] for line in of(lines, "resnet50", "CIM")] == [
        ["300/–", "100/–", "–"],
        ["300/–", "300/–", "–"],
    ]
    assert [line[1] for line in robust] == ["Scratch", "MAE", "CIM", "Scratch", "SimMIM", "CIM"]
    # the ResNets of the published robustness table have the top-1 of 100 epochs of fine-tuning
    assert [line[3:6] for line in robust if line[0] == "resnet50"] == [
        ["–/–", "100/–", "–"],
        ["300/–", "100/–", "–"],
        ["300/–", "100/–", "–"],
    ]
    assert [line[6::2] for line in robust][2] == ["47.4", "22.7", "49.3", "30.3", "48.6", "35.3"]
    assert {cell for line in robust for cell in line[7::2]} == {"–"}


def test_an_absent_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no records at"):
        report(tmp_path / "absent")


def test_a_measured_figure_stands_beside_its_published_one(make: Make, tmp_path: Path) -> None:
    tuned(make, tmp_path, "a", 100, 0.8352, **CIM_B)
    lines = matrix(text := report(tmp_path))
    # Wilson: half = 1.96 sqrt(0.8352 * 0.1648 / 50000) = 0.00325; difference: 83.52 - 83.1 = 0.42
    assert of(lines, "vit_base", "CIM") == [
        ["300/300", "–/100", "CIM-ViT-B", "83.1", "83.5 [83.2, 83.8] n=50,000", "+0.4"]
    ]
    assert sum(line[5] != "–" for line in lines) == 1
    assert "### Top-1 accuracy of pre-trained ViTs" in text  # the other tables follow
    cells = list(csv.DictReader((tmp_path / "matrix.csv").read_text().splitlines()))
    (row,) = {cell["row"] for cell in cells if "CIM-ViT-B" in cell["row"]}
    found = [(c["column"], c["source"], c["key"], float(c["value"])) for c in cells if c["row"] == row]
    assert found == [
        ("Published top-1", "reported", "", 0.831),
        ("Measured top-1", "measured", "a", 0.8352),
        ("Difference", "measured", "a", pytest.approx(0.0042)),
    ]
    assert len(cells) == 26 * 3 + 6 * 12 + 6 * 3


def test_only_imagenet_validation_of_the_same_backbone_joins(make: Make, tmp_path: Path) -> None:
    tuned(make, tmp_path, "a", 100, 0.9, **{**CIM_B, "benchmark": "photos"})
    tuned(make, tmp_path, "b", 100, 0.9, **{**CIM_B, "split": "train", "name": "b"})
    tuned(make, tmp_path, "c", 100, 0.9, **{**CIM_B, "arch": "vit_base_patch16_224@224,depth=4", "name": "c"})
    tuned(make, tmp_path, "d", 100, 0.9, **{**CIM_B, "method": "DINOv2", "name": "d"})
    tuned(make, tmp_path, "e", 100, 0.9, **{**CIM_B, "arch": "vit_large_patch16_224@224", "name": "e"})
    tuned(make, tmp_path, "f", 100, 0.9, **{**CIM_B, "name": "f", "metric": "top5"})
    assert {line[5] for line in matrix(report(tmp_path))} == {"–"}


def test_other_epochs_input_and_settings_are_footnotes(make: Make, tmp_path: Path) -> None:
    tuned(make, tmp_path, "a", 100, 0.83, **{**MAE_B, "arch": "vit_base_patch16_224@384"})
    passed = {"max_degrees": 0}
    knobs = {"mixup": 0, "training.epochs": 100}  # epochs have a column
    tuned(make, tmp_path, "b", 100, 0.82, **{**CIM_B, "pretext_passed": passed, "passed": knobs})
    lines = matrix(text := report(tmp_path))
    said = footnotes(text)
    ((pt, ft, subject, published, measured, difference),) = of(lines, "vit_base", "MAE")
    assert (pt, ft, difference) == ("300/800", "–/100", "+0.1")
    assert said[subject.split()[1]] == "measured as vit_base_patch16_224@384"
    assert said[published.split()[-1]] == "dagger: marked so in the source"
    assert said[measured.split()[-1]] == "measured checkpoint: 800 epochs of pre-training, published row: 300"
    ((pretext, *_, measured, difference),) = [line[2:] for line in lines if line[5] == "CIM-ViT-B"]
    assert said[pretext.split()[-1]] == "CIM with max_degrees=0"
    assert said[measured.split()[-1]] == "finetune with mixup=0"
    assert difference == "-1.1"


def test_candidates_are_listed_and_never_averaged(make: Make, tmp_path: Path) -> None:
    tuned(make, tmp_path, "a", 100, 0.83, **MAE_B)
    tuned(make, tmp_path, "b", 100, 0.84, **{**MAE_B, "name": "MAE-1600", "epochs": 1600.0})
    tuned(make, tmp_path, "c", 100, 0.82, **{**MAE_B, "name": "MAE-unknown", "epochs": None})
    lines = matrix(text := report(tmp_path))
    found = of(lines, "vit_base", "MAE")
    assert {line[2]: (line[0], line[4][:4], line[5]) for line in found} == {
        "MAE-ViT-B": ("300/800", "83.0", "+0.1"),
        "MAE-1600": ("300/1600", "84.0", "+1.1"),
        "MAE-unknown": ("300/–", "82.0", "-0.9"),
    }
    unknown = "measured checkpoint: an unknown number of epochs of pre-training, published row: 300"
    assert unknown in footnotes(text).values()
    assert "**" not in text.split("### ")[1].split("| Arch")[1]  # nothing is the best of its candidates


def test_scratch_and_fine_tuning_epochs_of_resnets(make: Make, tmp_path: Path) -> None:
    random = {"name": "Scratch-R50", "method": "random", "arch": "resnet50@224", "epochs": None}
    cim = {**random, "name": "CIM-R50", "method": "CIM", "epochs": 300.0}
    tuned(make, tmp_path, "a", 100, 0.78, **random)
    tuned(make, tmp_path, "b", 300, 0.80, **random)
    tuned(make, tmp_path, "c", 300, 0.81, **cim)
    tuned(make, tmp_path, "d", 50, 0.70, **cim)
    tuned(make, tmp_path, "e", 300, 0.82, **{**random, "arch": "vit_small_patch16_224@224", "name": "Scratch-S"})
    lines = matrix(report(tmp_path))
    assert [[*line[:3], line[5]] for line in of(lines, "resnet50", "RSB A3")] == [
        ["–/–", "100/100", "Scratch-R50", "-0.1"]
    ]
    assert [[*line[1:3], line[5]] for line in of(lines, "resnet50", "RSB A2")] == [["300/300", "Scratch-R50", "+0.2"]]
    assert [line[1:3] for line in of(lines, "resnet50", "CIM")] == [["100/–", "–"], ["300/300", "CIM-R50"]]
    assert of(lines, "vit_small", "Scratch")[0][2] == "Scratch-S"


def test_a_classifier_tuned_elsewhere_has_its_clean_top1(make: Make, tmp_path: Path) -> None:
    attack = {"evaluator": "adversarial", "benchmark": "imagenet-1k", "n": 50_000, "passed": {"steps": 9}}
    public = [
        make(**MAE_B, **attack, key="p", facets={"attack": a}, value=x) for a, x in (("clean", 0.836), ("pgd", 0.1))
    ]
    write_records(tmp_path / "p", public)
    # ours: its fine-tuning is on record, so the attack's clean top-1 is no second candidate
    tuned(make, tmp_path, "t", 100, 0.83, **CIM_B, checkpoint="B")
    own = make(**CIM_B, **attack, key="q", facets={"attack": "clean"}, value=0.8, checkpoint="C", parent="B", job="t")
    write_records(tmp_path / "q", [own])
    lines = matrix(text := report(tmp_path))
    ((*_, measured, difference),) = of(lines, "vit_base", "MAE")
    assert (measured[:4], difference) == ("83.6", "+0.7")
    said = [footnotes(text)[mark] for mark in measured.split("n=50,000")[1].split()]
    assert said == [
        "not fine-tuned here: top-1 on the clean images of the attacks",
        "measured checkpoint: 800 epochs of pre-training, published row: 300",
    ]
    assert [line[4][:4] for line in of(lines, "vit_base", "CIM")] == ["83.0"]


@pytest.fixture
def robust(make: Make) -> Callable[..., None]:
    """Writes the slides' robustness figures but IN-SK, of one classifier on ImageNet that job ``t`` has fine-tuned."""

    def write(root: Path, **fields: Any) -> None:
        one = {**CIM_B, "n": 50_000, "checkpoint": "C", "parent": "B", "job": "t", **fields}
        attack = {"key": "v", "evaluator": "adversarial", "benchmark": "imagenet-1k"}
        values = {"clean": 0.83, "fgsm": 0.5, "pgd": 0.25}
        write_records(
            root / "v", [make(**one, **attack, facets={"attack": name}, value=x) for name, x in values.items()]
        )
        corrupted = {"key": "c", "evaluator": "corruptions", "benchmark": "imagenet-c", "split": "test"}
        records = [
            make(**one, **corrupted, facets=damage_facets(damage), value=1 - ALEXNET_ERRORS[damage[0]] / 2)
            for damage in DAMAGES
        ]
        write_records(root / "c", records)
        for end, value in (("a", 0.31), ("r", 0.49)):
            shift = {"key": end, "evaluator": "shifts", "benchmark": f"imagenet-{end}", "split": "test"}
            write_records(root / end, [make(**{**one, **shift, "n": 7_500}, value=value)])

    return write


def test_other_images_data_networks_and_recipes_are_footnotes(make: Make, tmp_path: Path) -> None:
    """A part of the images; pre-trained on more data; positions of its own; RSB's knobs are a ResNet's usual ones."""
    beit = {**CIM_B, "name": "BEiT-B", "method": "BEiT", "arch": "beit_base_patch16_224@224"}
    simmim = {**CIM_B, "name": "SimMIM-B", "method": "SimMIM", "pretrain_data": "imagenet-1k"}
    tuned(make, tmp_path, "a", 100, 0.9, **CIM_B, n=5_000)
    tuned(make, tmp_path, "b", 100, 0.845, **beit, pretrain_data="IN-22K+DALL-E")
    tuned(make, tmp_path, "c", 100, 0.83, **simmim)
    said = footnotes(text := report(tmp_path))

    def marks(name: str) -> list[str]:
        (line,) = [line for line in matrix(text) if line[5].startswith(name)]
        cells = line[5].removeprefix(name), line[7].split("n=")[1].partition(" ")[2]
        return [said[mark] for cell in cells for mark in cell.split()]

    assert marks("CIM-ViT-B") == ["5,000 images, where the validation split of ImageNet-1K has 50,000"]
    assert marks("BEiT-B") == [
        "measured as beit_base_patch16_224@224",
        "measured checkpoint: said to be pre-trained on IN-22K+DALL-E, published row: IN-1K+DALL-E",
    ]
    assert marks("SimMIM-B") == ["measured as vit_base_patch16_224@224"]


def test_a_resnet_is_told_from_rsb(make: Make, tmp_path: Path) -> None:
    knobs = {**RSB[100.0]}
    for key, passed in (("rsb", knobs), ("own", {"mixup": 0.1, "training.epochs": 100})):
        fields = {**CIM_R50, "name": key, "passed": passed, "settings": {"training": {"epochs": 100}, "loss": "ce"}}
        tuned(make, tmp_path, key, 100, 0.78, **fields)
    said = footnotes(text := report(tmp_path))
    cells = {line[5]: line[7].split("n=50,000")[1].split() for line in matrix(text) if line[5] in ("rsb", "own")}
    assert cells["rsb"] == []
    (footnote,) = (said[mark] for mark in cells["own"])
    assert footnote.startswith("finetune with ")
    assert "loss=ce" in footnote
    assert "train_size=None" in footnote
    assert "mixup" not in footnote


def test_robustness_pairs(make: Make, robust: Callable[..., None], tmp_path: Path) -> None:
    robust(tmp_path)
    tuned(make, tmp_path, "t", 100, 0.83, **CIM_B, checkpoint="B")
    text = report(tmp_path)
    (line,) = of(matrix(text, ROBUST), "vit_base", "CIM")
    assert line[:3] == ["300/300", "–/100", "CIM-ViT-B"]
    pairs = zip(line[3::2], (cell.split()[0] for cell in line[4::2]), strict=True)
    assert dict(zip(ATTACKS, pairs, strict=True)) == {
        "FGSM": ("47.4", "50.0"),
        "PGD": ("22.7", "25.0"),
        "IN-C mCE": ("49.3", "50.0"),  # half of AlexNet's error everywhere
        "IN-A": ("30.3", "31.0"),
        "IN-R": ("48.6", "49.0"),
        "IN-SK": ("35.3", "–"),
    }
    assert all(cell == "–" for other in matrix(text, ROBUST) for cell in other[7::2] if other[5] == "–")


def test_robustness_on_other_sets_does_not_join(make: Make, tmp_path: Path) -> None:
    attack = {"evaluator": "adversarial", "benchmark": "photos", "facets": {"attack": "fgsm"}}
    write_records(tmp_path / "v", [make(**CIM_B, **attack)])
    shift = {"key": "a", "evaluator": "shifts", "benchmark": "photos-a", "split": "test"}
    write_records(tmp_path / "a", [make(**CIM_B, **shift)])
    generated = {"key": "g", "evaluator": "corruptions", "benchmark": "imagenet-1k-c-generated", "split": "val"}
    write_records(tmp_path / "g", [make(**CIM_B, **generated, facets=damage_facets(damage)) for damage in DAMAGES])
    assert {cell for line in matrix(report(tmp_path), ROBUST) for cell in line[7::2]} == {"–"}


def test_robustness_says_which_fine_tuning_it_rests_on(make: Make, robust: Callable[..., None], tmp_path: Path) -> None:
    robust(tmp_path, **CIM_R50)
    tuned(make, tmp_path, "t", 300, 0.8, **CIM_R50, checkpoint="B")
    text = report(tmp_path)
    (line,) = of(matrix(text, ROBUST), "resnet50", "CIM")
    assert line[1:3] == ["100/300", "CIM-R50"]
    said = footnotes(text, ROBUST)
    assert said[line[4].split()[-1]] == "measured checkpoint: 300 epochs of fine-tuning, published row: 100"


def robustness_row(text: str) -> dict[str, str]:
    """The measured row of the slides' robustness table."""
    lines = text.partition("### Robustness of fine-tuned models\n")[2].split("### ")[0].splitlines()
    header, _, row, *_ = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    return dict(zip(header, row, strict=True))


# Relative mCE by hand: corrupted error half of AlexNet's A, so the mean of (A / 2 - clean error) / (A - 0.4348).
@pytest.mark.parametrize(
    ("attacked", "epochs", "clean", "relative"), [("a3", 100, "78.0", "49.2"), ("a2", 300, "80.2", "56.3")]
)
def test_of_two_fine_tunings_the_attacked_one_is_known(
    make: Make, robust: Callable[..., None], tmp_path: Path, attacked: str, epochs: int, clean: str, relative: str
) -> None:
    tuned(make, tmp_path, "a3", 100, 0.78, **CIM_R50, checkpoint="B")
    tuned(make, tmp_path, "a2", 300, 0.802, **CIM_R50, checkpoint="B")
    robust(tmp_path, **CIM_R50, job=attacked)
    text = report(tmp_path)
    (line,) = of(matrix(text, ROBUST), "resnet50", "CIM")
    assert line[1:3] == [f"100/{epochs}", "CIM-R50"]
    assert [cell.split()[0] for cell in line[4::2]] == ["50.0", "25.0", "50.0", "31.0", "49.0", "–"]
    other = "measured checkpoint: 300 epochs of fine-tuning, published row: 100"
    assert (other in footnotes(text, ROBUST).values()) == (epochs == 300)
    # Both are candidates for their own published top-1, whichever was attacked.
    top1 = [(line[1], line[4].split()[0], line[5]) for line in of(matrix(text), "resnet50", "CIM")]
    assert top1 == [("100/100", "78.0", "-0.6"), ("300/300", "80.2", "+0.1")]
    assert robustness_row(text)["Clean top-1 (%) ↑"].startswith(f"{clean} [")
    sums = text.partition("### Corruptions: mCE, relative mCE and mean top-1\n")[2]
    (summed,) = [line.split("|")[1:-1] for line in sums.splitlines() if line.startswith("| CIM-R50")]
    assert [cell.split()[0] for cell in summed[3:5]] == ["50.0", relative]


def test_failures_leave_dashes_here_and_reasons_below(make: Make, tmp_path: Path) -> None:
    write_records(tmp_path, [make(**CIM_B, key="", evaluator="finetune", error="out of memory")])
    text = report(tmp_path)
    assert {line[5] for line in matrix(text)} == {"–"}
    assert "finetune failed: out of memory" in text.partition("### Top-1 accuracy of pre-trained ViTs")[2]


def test_names_cannot_break_the_table(make: Make, tmp_path: Path) -> None:
    tuned(make, tmp_path, "a", 100, 0.83, **{**CIM_B, "name": "a|b\nc"})
    assert "| a\\|b c " in report(tmp_path)
