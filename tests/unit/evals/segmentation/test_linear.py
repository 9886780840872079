"""Linear segmentation: the head by hand, statistics of the whole effective batch, kept tokens, kill and resume."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.contracts.context import Context
from cim_bench.data.segmentation import IGNORED, SegmentationSet
from cim_bench.evals.segmentation.linear import SegmentationLinear
from cim_bench.evals.segmentation.probe import LinearSegmenter, SegmentationProbe
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs.plan import make_plan
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.spec import Arch, Data, IterationTraining, Machine, SlidingTest
from tests.processes import in_two_processes

SHORT = IterationTraining(iterations=6, effective_batch=4, lr=1e-2, weight_decay=1e-4, validations=1)


@pytest.fixture
def recipe(small_masks: Data) -> SegmentationLinear:
    test = SlidingTest(scale=(128, 48), crop=32, strides=(24,))
    return SegmentationLinear(data=small_masks, training=SHORT, test=test)


@pytest.fixture
def model(tiny_arch: Arch) -> Backbone:
    return load_backbone(random_checkpoint(RandomInit(arch=tiny_arch), 0), what="random")


@pytest.fixture
def context(tiny_arch: Arch, small_photos: Data, cpu: Machine, tmp_path: Path) -> Context:
    meta = random_checkpoint(RandomInit(arch=tiny_arch), 0).meta
    machine = replace(cpu, log_every=1)
    return Context(data=small_photos, machine=machine, seed=0, folder=tmp_path / "job", subject=meta, key="k")


def losses(folder: Path) -> list[float]:
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_a_window_of_512_is_padded_to_whole_patches_of_14() -> None:
    arch = Arch(name="vit_small_patch14_dinov2", options={"embed_dim": 24, "depth": 1, "num_heads": 2})
    network = SegmentationLinear().network(Backbone(arch), 5)
    assert network.backbone.arch.image_size == 518
    seen: list[torch.Tensor] = []
    network.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    real = network.backbone.token_maps
    network.backbone.token_maps = lambda images, *a, **k: (seen.append(images), real(images, *a, **k))[1]  # type: ignore[method-assign]
    image = torch.rand(1, 3, 512, 512)
    assert network(image).shape == (1, 5, 37, 37)
    torch.testing.assert_close(seen[0][:, :, 3:515, 3:515], image)
    border = network.backbone.normalize(seen[0])[:, :, :3]
    assert border.abs().max() < 1e-6


def test_tokens_of_several_blocks_are_concatenated(model: Backbone) -> None:
    network = LinearSegmenter(model, blocks=(0, 1), norm=True, classes=3)
    images = torch.rand(2, 3, 32, 32)
    both = network.tokens(images)
    assert both.shape == (2, 96, 4, 4)
    assert both[:, 48:].equal(LinearSegmenter(model, blocks=(), norm=True, classes=3).tokens(images))
    cnn = LinearSegmenter(Backbone(Arch(name="resnet10t", image_size=64)), blocks=(1, 3), norm=True, classes=3)
    assert cnn.tokens(torch.rand(1, 3, 64, 64)).shape == (1, 128 + 512, 8, 8)  # of the first one's size


def test_the_loss_is_the_mean_over_all_pixels_and_only_the_head_learns(model: Backbone) -> None:
    network = LinearSegmenter(model, blocks=(), norm=True, classes=3)
    probe = SegmentationProbe(network).train()
    masks = torch.randint(0, 3, (4, 32, 32), dtype=torch.uint8)
    masks[0, :20] = IGNORED
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    found = probe(probe.frozen_features({"image": images, "mask": masks}))
    found["loss"].backward()
    gradients = [parameter.grad.clone() for parameter in network.head.parameters() if parameter.grad is not None]
    network.zero_grad()
    logits = F.interpolate(network(images.float() / 255), size=(32, 32), mode="bilinear", align_corners=False)
    plain = F.cross_entropy(logits, masks.long(), ignore_index=IGNORED, reduction="sum") / masks.numel()
    plain.backward()
    torch.testing.assert_close(found["loss"], plain)
    for one, parameter in zip(gradients, network.head.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)
    assert not any(parameter.requires_grad for parameter in network.backbone.parameters())
    assert not network.backbone.training
    assert network.head.training


def test_statistics_are_of_the_effective_batch_whatever_the_passes(
    recipe: SegmentationLinear, model: Backbone, context: Context, tmp_path: Path
) -> None:
    found = []
    for micro in (4, 1):
        machine = replace(context.machine, micro_batch=micro)
        values = {
            m.metric: m.value
            for m in recipe.run(model, replace(context, machine=machine, folder=tmp_path / str(micro)))
        }
        found.append((losses(tmp_path / str(micro)), values["pixel_accuracy"]))
    assert len(found[0][0]) == 6
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert found[0][1] == pytest.approx(found[1][1], abs=0.01)


def train(rank: int, recipe: SegmentationLinear, model: Backbone, context: Context) -> None:
    values = {m.metric: m.value for m in recipe.run(model, replace(context, main=rank == 0))}
    (context.folder / f"{rank}.json").write_text(json.dumps(values))


@pytest.mark.parametrize("augment", ["crop", "none"])
def test_two_processes_train_the_same_head(
    recipe: SegmentationLinear, model: Backbone, context: Context, tmp_path: Path, augment: Any
) -> None:
    """SyncBN: both see the statistics of all four images."""
    recipe = replace(recipe, augment=augment)
    list(recipe.run(model, replace(context, folder=tmp_path / "alone")))
    context.folder.mkdir()
    in_two_processes(train, recipe, model, context, meet=tmp_path / "meet")
    assert losses(context.folder) == pytest.approx(losses(tmp_path / "alone"), rel=1e-4)
    assert (context.folder / "0.json").read_text() == (context.folder / "1.json").read_text()


def test_a_killed_training_goes_on_bit_for_bit(
    recipe: SegmentationLinear, model: Backbone, context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = list(recipe.run(model, replace(context, folder=tmp_path / "whole")))
    machine = replace(context.machine, save_every_s=0.0)
    left = iter(range(4))
    real = SegmentationProbe.forward

    def killed(self: SegmentationProbe, batch: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(SegmentationProbe, "forward", killed)
    with pytest.raises(KeyboardInterrupt):
        list(recipe.run(model, replace(context, machine=machine)))
    assert (context.folder / "resume.pt").exists()
    monkeypatch.setattr(SegmentationProbe, "forward", real)
    assert list(recipe.run(model, context)) == whole
    assert not (context.folder / "resume.pt").exists()


def test_kept_tokens_are_made_once_for_all_models(
    recipe: SegmentationLinear, tiny_arch: Arch, small_masks: Data, cpu: Machine, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    counts: Counter[str] = Counter()
    real = SegmentationSet.read

    def read(self: SegmentationSet, index: int) -> Any:
        counts[f"{self.split}/{self.image_id(index)}"] += 1
        return real(self, index)

    monkeypatch.setattr(SegmentationSet, "read", read)
    benchmark = Benchmark(
        name="b",
        subjects={"one": RandomInit(arch=tiny_arch), "two": RandomInit(arch=replace(tiny_arch, image_size=48))},
        evaluators={"kept": replace(recipe, augment="none"), "crops": recipe},
        data=small_masks,
        machine=cpu,
        executor=LocalExecutor(slots=1),
    )
    assert {job.name: job.shares for job in make_plan(benchmark)} == {
        "one/kept": "kept", "two/kept": "kept", "one/crops": "", "two/crops": "",
    }  # fmt: skip
    runner = Runner(benchmark, tmp_path, only_jobs=["*/kept"])
    assert {result.error for result in runner.run().values()} == {""}
    assert {name: count for name, count in counts.items() if name.startswith("train/")} == {
        f"train/{name}": 1 for name in (SegmentationSet(small_masks, "train").image_id(i) for i in range(12))
    }
    assert not list(tmp_path.rglob("features"))


def test_settings_without_effect_are_refused(recipe: SegmentationLinear) -> None:
    with pytest.raises(ValueError, match=r"SegmentationLinear\.test\.whole is True, and frozen positions are of one"):
        replace(recipe, test=replace(recipe.test, whole=True))
    with pytest.raises(ValueError, match=r"layer_decay is 0\.65, and has no effect on a head alone; set it to None"):
        replace(recipe, training=replace(SHORT, layer_decay=0.65))


def test_blocks_that_a_network_lacks(recipe: SegmentationLinear, model: Backbone) -> None:
    with pytest.raises(ValueError, match="has no block 5; choose blocks of 0 to 1"):
        replace(recipe, blocks=(1, 5)).check(model)
