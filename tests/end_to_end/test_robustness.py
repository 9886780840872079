"""The robustness commands, as a user runs them: corrupt, evaluate with roots of one's own, report, compare."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cim_bench.benchmark import RandomInit
from cim_bench.cli import main as cli
from cim_bench.evals.classifier import make_classifier
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import load_backbone
from cim_bench.models.checkpoint import save_checkpoint
from cim_bench.spec import Arch, Data

CLASSES = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture
def classifiers(tiny_arch: Arch, tmp_path: Path) -> list[str]:
    made = []
    for seed in (0, 1):
        checkpoint = random_checkpoint(RandomInit(arch=tiny_arch), seed)
        net = make_classifier(load_backbone(checkpoint, what="r"), 4, drop_path=0.0, head_std=0.5).net
        folder = tmp_path / f"classifier{seed}"
        meta = replace(checkpoint.meta, kind="classifier", classes=CLASSES, global_pool="avg")
        save_checkpoint(folder, net.state_dict(), meta)
        made.append(str(folder))
    return made


def test_corrupt_evaluate_report_and_compare(
    classifiers: list[str],
    small_photos: Data,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    few = tmp_path / "few"
    for label in CLASSES:
        (few / "val" / label).mkdir(parents=True)
        for file in sorted(Path(small_photos.root, "val", label).iterdir())[:2]:
            shutil.copy(file, few / "val" / label)
    corrupt = ["data", "corrupt", str(few), "few-c", "--size", "32", "--crop-pct", "1", "--workers", "0"]
    assert cli.main(corrupt) == 0
    assert "600 files written" in capsys.readouterr().out
    assert cli.main(corrupt) == 0
    assert "0 files written" in capsys.readouterr().out
    assert cli.main(["data", "check", str(few), "few-c"]) == 1  # it is no whole ImageNet-C
    assert "few-c: ImageNet-C" in capsys.readouterr().out

    names = ["adversarial", "corruptions", "imagenet_sketch"]
    evaluate = ["evaluate", *classifiers, "--output", "out", "--evaluators", *names]
    evaluate += ["--data.root", str(few), "--data.name", "few", "--machine.workers", "0", "--machine.device", "cpu"]
    evaluate += ["--evaluators.adversarial.crop-pct", "1", "--evaluators.corruptions.size", "32"]
    evaluate += ["--evaluators.corruptions.data.root", "few-c", "--evaluators.corruptions.data.name", "few-c"]
    evaluate += ["--evaluators.imagenet_sketch.data.root", str(few / "val")]
    assert cli.main(evaluate) == 0
    printed = capsys.readouterr()
    assert "### Robustness of fine-tuned models" in printed.out
    assert (tmp_path / "out" / "robustness.csv").exists()
    assert cli.main(evaluate) == 0
    assert capsys.readouterr().err.count("skipped") == 6

    shutil.rmtree(tmp_path / "few-c" / "fog" / "3")
    assert cli.main([*evaluate, "--seed", "1"]) == 1
    printed = capsys.readouterr()
    assert "few-c lacks 1 of 75 folders CORRUPTION/SEVERITY, e.g. fog/3" in printed.err
    assert "corruptions failed: few-c lacks 1 of 75" in printed.out  # a dash with a footnote

    folders = sorted(str(path) for path in (tmp_path / "out").iterdir() if path.is_dir() and path.name != "benchmarks")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "few-c" / "fog" / "3").mkdir()
    assert cli.main([*evaluate[:3], "--output", "out", "--evaluators", "adversarial", *evaluate[9:17]]) == 0
    capsys.readouterr()
    assert cli.main(["compare", *folders]) == 0
    assert "| adversarial | few       | pgd" in capsys.readouterr().out
