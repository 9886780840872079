"""Outputs that are no numbers fail their own job; answers that are all the same are told beside the number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.data.images import ImageSet
from cim_bench.engine.inference import NonFiniteOutputError, check_finite
from cim_bench.evals.classifier import make_classifier
from cim_bench.evals.finetune import Finetune
from cim_bench.evals.knn import KNN
from cim_bench.evals.shifts import Shift
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import load_backbone
from cim_bench.models.checkpoint import Checkpoint, save_checkpoint
from cim_bench.records.store import read_records
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine, Training

SAME = "all images got the same answer: the model does not tell them apart"
NOT_FINITE = "the model's outputs on small/train are not finite for 48 of 48 images, the first is astronaut/000.jpg; "


def save_three(folder: Path, checkpoint: Checkpoint) -> None:
    """A sound checkpoint, one of zeros, and one whose normalisation divides by all but zero."""
    state, meta = checkpoint.state, checkpoint.meta
    save_checkpoint(folder / "sound", state, meta)
    save_checkpoint(folder / "zeros", {name: torch.zeros_like(value) for name, value in state.items()}, meta)
    save_checkpoint(folder / "std-0", state, replace(meta, std=(1e-44, 1e-44, 1e-44)))


def run_three(
    folder: Path, data: Data, machine: Machine, evaluator: Evaluator
) -> tuple[dict[str, str], dict[str, str]]:
    """Errors of jobs, and the footnote of a record, by subject."""
    names = ("sound", "zeros", "std-0")
    benchmark = Benchmark(
        name="b",
        subjects={name: FromCheckpoint(path=str(folder / name)) for name in names},
        evaluators={"e": evaluator},
        data=data,
        machine=machine,
        executor=LocalExecutor(slots=1),
    )
    results = Runner(benchmark, folder / "out").run()
    records = [record for record in read_records(folder / "out") if record.measurement]
    return (
        {result.job.subject: result.error for result in results.values()},
        {record.subject.name: " ".join(record.warnings) for record in records},
    )


@pytest.fixture
def checkpoint(tiny_arch: Arch) -> Checkpoint:
    return random_checkpoint(RandomInit(arch=tiny_arch), 0)


def test_features(checkpoint: Checkpoint, small_photos: Data, cpu: Machine, tmp_path: Path) -> None:
    save_three(tmp_path, checkpoint)
    errors, footnotes = run_three(tmp_path, small_photos, cpu, KNN(k=(5,)))
    assert errors["sound"] == errors["zeros"] == ""
    assert errors["std-0"].startswith(NOT_FINITE)
    assert footnotes == {"sound": "", "zeros": SAME}


def test_a_model_without_numbers_fails_alone_among_those_that_share_its_pass(
    checkpoint: Checkpoint, small_photos: Data, cpu: Machine, tmp_path: Path
) -> None:
    classifier = make_classifier(load_backbone(checkpoint, what="x"), 4, drop_path=0.0, head_std=0.5)
    meta = replace(
        checkpoint.meta,
        kind="classifier",
        arch=classifier.arch,
        classes=ImageSet(small_photos, "val").classes,
        global_pool="avg",
    )
    save_three(tmp_path, Checkpoint(state=classifier.net.state_dict(), meta=meta))
    shift = Shift(data=replace(small_photos, name="shifted"), clean=True)
    errors, footnotes = run_three(tmp_path, small_photos, cpu, shift)
    assert errors["sound"] == errors["zeros"] == ""
    assert errors["std-0"].startswith("std-0: the model's outputs on shifted/val are not finite; ")
    assert footnotes.keys() == {"sound", "zeros"}
    assert footnotes["zeros"] == SAME


def test_a_diverged_fine_tuning_has_no_number(
    checkpoint: Checkpoint, small_photos: Data, cpu: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_three(tmp_path, checkpoint)
    monkeypatch.setattr("cim_bench.engine.fit.learning_rate", lambda *_, **__: 1e30)
    once = Training(epochs=1, effective_batch=48, base_lr=1.0)  # one step: its loss is still finite
    errors, footnotes = run_three(tmp_path, small_photos, cpu, Finetune(training=once))
    assert all("finite" in error or "loss is nan" in error for error in errors.values())
    assert footnotes == {}
    assert not list(tmp_path.rglob("classifier"))


def test_what_measures_a_classifier_repeats_what_its_fine_tuning_warns_of(
    checkpoint: Checkpoint, small_photos: Data, cpu: Machine, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "sound", checkpoint.state, checkpoint.meta)
    never = Training(epochs=1, effective_batch=48, base_lr=1e-12)
    benchmark = Benchmark(
        name="b",
        subjects={"sound": FromCheckpoint(path=str(tmp_path / "sound"))},
        evaluators={"finetune": Finetune(training=never), "shift": Shift(data=replace(small_photos, name="shifted"))},
        data=small_photos,
        machine=cpu,
        executor=LocalExecutor(slots=1),
    )
    Runner(benchmark, tmp_path / "out").run()
    found = {record.protocol.evaluator: record.warnings for record in read_records(tmp_path / "out")}
    (own,) = [text for text in found["finetune"] if text.startswith("its training has hardly learned: ")]
    assert f"about its fine-tuning: {own}" in found["shifts"]


def test_the_first_image_is_named(small_photos: Data) -> None:
    images = ImageSet(small_photos, "val")
    outputs = torch.zeros(24, 3)
    check_finite(outputs, images)
    outputs[7, 1], outputs[9, 0] = torch.inf, torch.nan
    for found in (outputs, outputs.sum(dim=1)):
        with pytest.raises(NonFiniteOutputError, match=r"for 2 of 24 images, the first is chelsea/001\.jpg"):
            check_finite(found, images)
