"""detectron2's own machinery on real photographs; ``tox run -e detectron2`` builds what it needs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cim_bench.benchmark import RandomInit
from cim_bench.common.seeds import seed_all
from cim_bench.contracts.context import Context
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.engine.fit import NonFiniteLossError
from cim_bench.engine.fit import fit as own_fit
from cim_bench.evals.segmentation import detectron2_engine
from cim_bench.evals.segmentation.detectron2_hooks import Hooks
from cim_bench.evals.segmentation.detectron2_parts import Kept
from cim_bench.evals.segmentation.samples import SegmentationSamples
from cim_bench.evals.segmentation.scoring import score as own_score
from cim_bench.evals.segmentation.upernet import SegmentationModel, SegmentationUPerNet
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.records.confusions import (
    class_sums,
    mean_accuracy,
    miou,
    miou_present,
    per_class_iou,
    pixel_accuracy,
)
from cim_bench.spec import Arch, Data, IterationTraining, Machine, SlidingTest

STEPS = 6


@pytest.fixture(scope="module", autouse=True)
def detectron2() -> Any:
    """The real thing, in the environment that has it."""
    pytest.importorskip("detectron2", reason="detectron2 is not installed; its environment is `tox run -e detectron2`")
    return detectron2_engine.load_detectron2()


@pytest.fixture(scope="module")
def arch() -> Arch:
    options = {"patch_size": 16, "embed_dim": 48, "depth": 4, "num_heads": 3}
    return Arch(name="vit_tiny_patch16_224", image_size=64, options=options)


@pytest.fixture(scope="module")
def recipe() -> SegmentationUPerNet:
    return SegmentationUPerNet(
        data=Data(name="photos-seg", root="photos-seg"),
        training=IterationTraining(iterations=STEPS, effective_batch=4, lr=1e-3, layer_decay=0.65, warmup_iterations=2),
        test=SlidingTest(scale=(256, 96), crop=64, strides=(43,)),
        blocks=(0, 1, 2, 3),
        channels=16,
        drop_path=0.2,
        engine="detectron2",
    )


def job(recipe: SegmentationUPerNet, arch: Arch, machine: Machine, folder: Path) -> tuple[Backbone, Context]:
    checkpoint = random_checkpoint(RandomInit(arch=arch), seed=0)
    folder.mkdir(exist_ok=True)
    context = Context(data=recipe.data, machine=machine, seed=0, folder=folder, subject=checkpoint.meta, key="k" * 64)
    return load_backbone(checkpoint, what="random"), context


def few(images: SegmentationSet, count: int) -> SegmentationSet:
    return images.take(range(count))


class Trained:
    """A fresh network and what trains it, the same for every call."""

    def __init__(self, recipe: SegmentationUPerNet, arch: Arch) -> None:
        backbone = load_backbone(random_checkpoint(RandomInit(arch=arch), seed=0), what="random")
        self.images = few(SegmentationSet(recipe.data, "train"), 12)
        seed_all(0, "head")
        self.network = recipe.network(backbone, len(self.images.classes))
        self.model = SegmentationModel(self.network, recipe)
        self.samples = SegmentationSamples(self.images, recipe.transform(backbone), 0)
        self.groups = recipe.groups(self.network)


def train(
    fit: Callable[..., dict[str, float]], recipe: SegmentationUPerNet, arch: Arch, machine: Machine, folder: Path
) -> tuple[dict[str, Tensor], dict[str, float], list[dict[str, Any]]]:
    made = Trained(recipe, arch)
    folder.mkdir(exist_ok=True)
    last = fit(
        made.model,
        made.samples,
        made.groups,
        training=recipe.training,
        machine=machine,
        seed=0,
        folder=folder,
        key="k",
        title="test",
        validate=lambda: {"miou": 0.5},
    )
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {name: value.clone() for name, value in made.network.state_dict().items()}, last, log


@pytest.mark.parametrize("workers", [0, 2])
def test_both_engines_train_to_the_same_weights(
    recipe: SegmentationUPerNet, arch: Arch, cpu: Machine, tmp_path: Path, workers: int
) -> None:
    machine = replace(cpu, workers=workers, log_every=2)
    ours, own_last, own_log = train(own_fit, recipe, arch, machine, tmp_path / "own")
    theirs, last, log = train(detectron2_engine.fit, recipe, arch, machine, tmp_path / "detectron2")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert last["loss"] == pytest.approx(own_last["loss"], abs=1e-6)
    assert [line["loss"] for line in log if "loss" in line] == pytest.approx(
        [line["loss"] for line in own_log if "loss" in line], abs=1e-6
    )
    assert [line["step"] for line in log if "miou" in line] == [line["step"] for line in own_log if "miou" in line]


def test_a_training_that_was_killed_goes_on_to_the_same_weights(
    recipe: SegmentationUPerNet, arch: Arch, cpu: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = replace(cpu, save_every_s=0.0)
    whole, last, _ = train(detectron2_engine.fit, recipe, arch, machine, tmp_path / "whole")

    class Killed(BaseException):
        pass

    note = Hooks.note

    def dies(hooks: Any, trainer: Any) -> None:
        note(hooks, trainer)
        if trainer.iter == 3:
            raise Killed

    monkeypatch.setattr(Hooks, "note", dies)
    with pytest.raises(Killed):
        train(detectron2_engine.fit, recipe, arch, machine, tmp_path / "killed")
    assert [file.name for file in tmp_path.glob("killed/detectron2/k/*.pth")] == ["step_0000003.pth"]
    monkeypatch.setattr(Hooks, "note", note)
    again, last_again, _ = train(detectron2_engine.fit, recipe, arch, machine, tmp_path / "killed")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert last_again == last
    detectron2_engine.clear(tmp_path / "killed")
    assert not (tmp_path / "killed/detectron2").exists()


def test_a_training_that_is_interrupted_saves_first(
    recipe: SegmentationUPerNet, arch: Arch, cpu: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, last, _ = train(detectron2_engine.fit, recipe, arch, cpu, tmp_path / "whole")
    note = Hooks.note

    def interrupted(hooks: Any, trainer: Any) -> None:
        note(hooks, trainer)
        if trainer.iter == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Hooks, "note", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(detectron2_engine.fit, recipe, arch, cpu, tmp_path / "stopped")
    monkeypatch.setattr(Hooks, "note", note)
    assert [file.name for file in tmp_path.glob("stopped/detectron2/k/*.pth")] == ["step_0000004.pth"]
    again, last_again, _ = train(detectron2_engine.fit, recipe, arch, cpu, tmp_path / "stopped")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert last_again == last


class Guess(nn.Module):
    """Logits at stride 4 from colours by fixed weights: wrong in its own way on every image, and never class 7."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, 3, 4, 4, generator=generator))
        self.bias = nn.Parameter(torch.zeros(classes).index_fill(0, torch.tensor([7]), -1e3))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images - 0.5, self.weight, self.bias, stride=4)


@pytest.fixture(scope="module")
def val() -> SegmentationSet:
    return few(SegmentationSet(Data(name="photos-seg", root="photos-seg"), "val"), 6)


def test_both_engines_score_the_same_predictions_alike(val: SegmentationSet, cpu: Machine, detectron2: Any) -> None:
    test = SlidingTest(scale=(300, 120), crop=64, strides=(43, 64), whole=True)
    mean = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    kept: dict[str, dict[int, Tensor]] = {"own": {}, "detectron2": {}}
    found = {}
    for name, score in (("own", own_score), ("detectron2", detectron2_engine.score)):
        keep = kept[name].__setitem__
        found[name] = score(Guess(8).eval(), val, test, mean=mean, patch=16, machine=cpu, keep=keep)
    assert [facets for facets, _ in found["own"]] == [facets for facets, _ in found["detectron2"]]
    for (_, ours), (_, theirs) in zip(found["own"], found["detectron2"], strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert np.array_equal(one.cells, other.cells)
            assert np.array_equal(one.counts, other.counts)
    assert all(torch.equal(kept["own"][index], kept["detectron2"][index]) for index in range(len(val)))


def test_every_measure_is_that_of_semsegevaluator(val: SegmentationSet, detectron2: Any) -> None:
    images = few(val, 4)
    name, records = detectron2_engine.register(images)
    evaluator = detectron2_engine.make_evaluator(name, images)
    kept = Kept(8, None)
    generator = torch.Generator().manual_seed(1)
    for one in (evaluator, kept):
        one.reset()
    for record in records:
        mask = images.read(record["index"])[1]
        logits = torch.randn(8, *mask.shape, generator=generator)
        logits[5] += 2  # a class that is predicted everywhere
        inputs, outputs = [{**record, "sem_seg": mask}], [{"sem_seg": logits}]
        for one in (evaluator, kept):
            one.process(inputs, outputs)
    theirs = {measure: value / 100 for measure, value in evaluator.evaluate()["sem_seg"].items()}
    sums = class_sums(kept.cells, 8).sum(axis=0)
    assert float(miou_present(sums)) == pytest.approx(theirs["mIoU"], abs=1e-6)
    assert float(mean_accuracy(sums)) == pytest.approx(theirs["mACC"], abs=1e-6)
    assert float(pixel_accuracy(sums)) == pytest.approx(theirs["pACC"], abs=1e-6)
    shown = sums[1] > 0
    ious = [theirs[f"IoU-{label}"] for label in images.classes]
    assert per_class_iou(sums)[shown] == pytest.approx(np.array(ious)[shown], abs=1e-6)


def test_a_class_that_is_predicted_and_nowhere_true_is_counted_by_mmseg_alone(tmp_path: Path, detectron2: Any) -> None:
    for top in ("images", "annotations"):
        (tmp_path / top / "validation").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "images/validation/a.png")
    labels = np.ones((8, 8), dtype=np.uint8)
    labels[0], labels[1] = 0, 255  # unlabelled
    Image.fromarray(labels).save(tmp_path / "annotations/validation/a.png")
    (tmp_path / "classes.txt").write_text("here\nnowhere\nunseen\n")
    images = SegmentationSet(Data(name="absent", root=str(tmp_path)), "val")
    name, records = detectron2_engine.register(images)
    evaluator, kept = detectron2_engine.make_evaluator(name, images), Kept(3, None)
    logits = torch.zeros(3, 8, 8)
    logits[1, 6:] = 1  # 16 of 48 labelled pixels
    for one in (evaluator, kept):
        one.reset()
        one.process([{**records[0], "sem_seg": images.read(0)[1]}], [{"sem_seg": logits}])
    sums = class_sums(kept.cells, 3).sum(axis=0)
    assert float(miou_present(sums)) == pytest.approx(32 / 48)
    assert evaluator.evaluate()["sem_seg"]["mIoU"] / 100 == pytest.approx(32 / 48)
    assert float(miou(sums)) == pytest.approx(32 / 48 / 2)  # mmseg has the union of "nowhere", too


def test_the_protocol_runs_on_either_engine_to_the_same_numbers(
    recipe: SegmentationUPerNet, arch: Arch, cpu: Machine, tmp_path: Path
) -> None:
    found = {}
    for engine in ("own", "detectron2"):
        one = replace(recipe, engine=engine)
        model, context = job(one, arch, cpu, tmp_path / engine)
        found[engine] = [(m.metric, m.value, m.n, m.facets) for m in one.run(model, context)]
        assert not (tmp_path / engine / "detectron2").exists()
        assert (tmp_path / engine / "confusions").is_dir()
    assert found["own"] == found["detectron2"]
    assert {metric for metric, *_ in found["own"]} == {"miou", "miou_present", "mean_accuracy", "pixel_accuracy"}


@pytest.mark.parametrize(
    ("training", "machine", "message"),
    [
        ({}, {"micro_batch": 2}, "set machine.micro_batch to 4 or more, or engine to own"),
        ({"precision": "bf16"}, {}, "AMPTrainer needs a GPU for training.precision 'bf16'"),
    ],
)
def test_what_it_does_not_do_is_refused(
    recipe: SegmentationUPerNet, arch: Arch, cpu: Machine, tmp_path: Path,
    training: dict[str, Any], machine: dict[str, Any], message: str,
) -> None:  # fmt: skip
    changed = replace(recipe, training=replace(recipe.training, **training))
    model, context = job(changed, arch, replace(cpu, **machine), tmp_path / "job")
    with pytest.raises(ValueError, match=message):
        list(changed.run(model, context))


def test_a_loss_that_is_not_finite_names_the_step(
    recipe: SegmentationUPerNet, arch: Arch, cpu: Machine, tmp_path: Path
) -> None:
    wild = replace(
        recipe, training=replace(recipe.training, lr=1e3, warmup_iterations=0, optimizer="sgd", iterations=40)
    )
    with pytest.raises(NonFiniteLossError, match=r"loss is not finite at step \d+; lower the learning rate"):
        train(detectron2_engine.fit, wild, arch, cpu, tmp_path / "job")


@pytest.fixture
def camvid(test_data: Path, tmp_path: Path) -> Data:
    names = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
    (tmp_path / "classes.txt").write_text("\n".join(names))
    return Data(name="camvid", root=str(test_data / "camvid-ade"), class_list=str(tmp_path / "classes.txt"))


@pytest.mark.data
def test_it_learns_real_streets(camvid: Data, recipe: SegmentationUPerNet, cpu: Machine, tmp_path: Path) -> None:
    options = {"embed_dim": 96, "depth": 4, "num_heads": 3}
    arch = Arch(name="vit_tiny_patch16_224", image_size=96, options=options)
    streets = replace(
        recipe,
        data=camvid,
        training=replace(recipe.training, iterations=40, effective_batch=8, lr=2e-3, layer_decay=None, validations=1),
        test=SlidingTest(scale=(240, 120), crop=96, strides=(64,)),
        channels=32,
    )
    model, context = job(streets, arch, replace(cpu, log_every=5), tmp_path / "job")
    found = {m.metric: m.value for m in streets.run(model, context)}
    losses = [
        line["loss"]
        for line in map(json.loads, (tmp_path / "job/metrics.jsonl").read_text().splitlines())
        if "loss" in line
    ]
    assert losses[-1] < 0.85 * losses[0]
    # road everywhere, the best single answer, has 0.296 and 0.027
    assert found["pixel_accuracy"] > 0.45
    assert found["miou"] > 0.09
