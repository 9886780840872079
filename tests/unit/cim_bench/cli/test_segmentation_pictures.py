"""`cim-bench visualize` of jobs of segmentation: it finds the job and its images, or says what to give."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.cli import main as cli
from cim_bench.contracts.context import Context
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.evals.metrics import confusion_matrix
from cim_bench.evals.segmentation.measure import measurements
from cim_bench.evals.segmentation.upernet import SegmentationUPerNet
from cim_bench.jobs.resolved import write_benchmark
from cim_bench.models.checkpoint import Meta
from cim_bench.records.confusions import to_cells
from cim_bench.records.record import ProtocolInfo, Provenance, Record, SubjectInfo
from cim_bench.records.store import write_records
from cim_bench.spec import Arch, Data, Machine


@pytest.fixture
def run(photos_root: Path, tmp_path: Path) -> Path:
    """An output folder with a job of two subjects on three real photographs, as a benchmark leaves it."""
    root = tmp_path / "set"
    for top in ("images", "annotations"):
        (root / top / "validation").mkdir(parents=True)
    mask = Image.new("L", (64, 64), 1)
    mask.paste(2, (32, 0, 64, 64))
    for number, file in enumerate(sorted((photos_root / "val" / "coffee").iterdir())[:3]):
        with Image.open(file) as image:
            image.save(root / "images" / "validation" / f"{number}.png")
        mask.save(root / "annotations" / "validation" / f"{number}.png")
    (root / "classes.txt").write_text("left\nright\n")
    data = Data(name="halves", root=str(root), train_split="training", val_split="validation")
    evaluators = {"upernet": SegmentationUPerNet(data=data)}
    arch = Arch(name="vit_base_patch16_224")
    benchmark = Benchmark(name="b", subjects={"A": RandomInit(arch=arch)}, evaluators=evaluators, data=Data())
    write_benchmark(benchmark, tmp_path / "out")
    for name in "AB":
        measure(tmp_path / "out" / name / "upernet-1", name, SegmentationSet(data, "validation"))
    return tmp_path / "out"


def measure(folder: Path, name: str, images: SegmentationSet) -> None:
    """A job that takes the middle of each image for the right class, too."""
    protocol = ProtocolInfo(evaluator="segmentation_upernet", version=1)
    meta = Meta(kind="backbone", method="x", arch=Arch(), epochs=None, seed=0)
    ctx = Context(data=Data(), machine=Machine(), seed=0, folder=folder, subject=meta, key=name, protocol=protocol)
    guess = (torch.arange(64) >= 24).expand(64, 64).to(torch.uint8)
    cells = []
    for index in range(len(images)):
        ctx.save_prediction(images, index, guess)
        cells.append(to_cells(confusion_matrix(images.read(index)[1], guess, 2).numpy()))
    subject = SubjectInfo(name=name, method="x", arch="vit", epochs=None)
    common = {"key": name, "subject": subject, "protocol": protocol, "provenance": Provenance(source="measured")}
    write_records(folder, [Record(measurement=m, **common) for m in measurements(ctx, images, [({}, cells)])])


def test_two_jobs_are_drawn(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "seen.png"
    assert cli.main(["visualize", str(run / "A"), str(run / "B" / "upernet-1"), "--output", str(output)]) == 0
    drawn = capsys.readouterr().out.splitlines()
    assert drawn == [str(output), str(tmp_path / "seen-iou.png")]
    for file in drawn:
        with Image.open(file) as picture:
            assert picture.width > 500


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["visualize", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_images_that_moved_are_given(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "benchmarks")
    output = ["--output", str(tmp_path / "seen.png")]
    assert f"where the images of halves/validation lie is not known to {run}; give --root" in said(
        [str(run / "A"), *output], capsys
    )
    (tmp_path / "set").rename(tmp_path / "moved")
    (tmp_path / "moved" / "classes.txt").rename(tmp_path / "names.txt")
    moved = ["--root", str(tmp_path / "moved"), "--class-list", str(tmp_path / "names.txt")]
    assert cli.main(["visualize", str(run / "A"), *moved, *output]) == 0


def test_what_is_no_job_is_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = tmp_path / "absent"
    assert f"{absent} is no checkpoint that `cim-bench pretrain` made, and has no" in said([str(absent)], capsys)
    shutil.copytree(run / "A" / "upernet-1", run / "A" / "upernet-2")
    assert "A has 2 jobs of segmentation; give the folder of one: upernet-1, upernet-2" in said(
        [str(run / "A")], capsys
    )
    (run / "A" / "upernet-1" / "records.jsonl").unlink()
    assert "no finished job of segmentation" in said([str(run / "A" / "upernet-1")], capsys)
    shutil.rmtree(run / "B" / "upernet-1" / "predictions")
    assert "keep no predicted masks" in said([str(run / "B")], capsys)
