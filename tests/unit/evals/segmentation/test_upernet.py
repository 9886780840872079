"""UPerNet's fine-tuning: its optimiser groups, loss and warnings by hand; a run is in tests/end_to_end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from cim_bench.benchmark import RandomInit
from cim_bench.contracts.context import Context
from cim_bench.data.segmentation import IGNORED, SegmentationSet
from cim_bench.engine.log import read_log
from cim_bench.evals.segmentation.upernet import (
    SegmentationModel,
    SegmentationUPerNet,
    check_pass,
    layer_of,
    pixel_loss,
)
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.recipes.segmentation import MAE_CURVE, segmentation_mae
from cim_bench.spec import Arch, Data, IterationTraining, Machine, SlidingTest

TINY = Arch(name="vit_tiny_patch16_224", image_size=32, options={"embed_dim": 24, "depth": 4, "num_heads": 2})
SMALL = SegmentationUPerNet(
    training=IterationTraining(iterations=10, effective_batch=4, lr=1e-3, layer_decay=0.65),
    test=SlidingTest(scale=(64, 32), crop=32, strides=(16,)),
    blocks=(0, 1, 2, 3),
    channels=8,
    relative_bias=True,
    layer_scale=1.0,
)


def groups(recipe: SegmentationUPerNet) -> dict[str, dict[str, Any]]:
    network = recipe.network(Backbone(TINY), 5)
    found = {id(p): group for group in recipe.groups(network) for p in group["params"]}
    return {name: found[id(parameter)] for name, parameter in network.named_parameters()}


def test_rates_of_layers_and_decay_are_those_of_the_public_code() -> None:
    found = groups(SMALL)
    scale = {name: group["lr_scale"] for name, group in found.items()}
    for name in ("backbone.net.pos_embed", "backbone.net.cls_token", "backbone.net.patch_embed.proj.weight"):
        assert scale[name] == pytest.approx(0.65**5)  # depth 4: 0.65^(4 + 1), as 0.65^13 at depth 12
    assert scale["backbone.net.blocks.3.mlp.fc1.weight"] == pytest.approx(0.65)
    assert scale["pyramid.0.0.weight"] == scale["head.fuse.0.weight"] == scale["auxiliary.1.1.bias"] == 1
    decay = {name: group["weight_decay"] for name, group in found.items()}
    table = "backbone.net.blocks.0.attn.rel_pos.relative_position_bias_table"
    for name in ("backbone.net.pos_embed", "backbone.net.cls_token", table, "head.fuse.0.weight"):
        assert decay[name] == 0.05
    for name in ("backbone.net.blocks.0.ls1.gamma", "head.fuse.1.weight", "backbone.net.blocks.0.attn.qkv.bias"):
        assert decay[name] == 0
    meant = {name: group["weight_decay"] for name, group in groups(replace(SMALL, decay_positions=False)).items()}
    assert meant["backbone.net.pos_embed"] == meant["backbone.net.cls_token"] == meant[table] == 0
    assert meant["head.fuse.0.weight"] == 0.05


def test_layers_of_a_resnet() -> None:
    names = ("backbone.net.conv1.weight", "backbone.net.layer1.0.conv1.weight", "backbone.net.layer4.1.bn1.bias")
    assert [layer_of(name, 4) for name in (*names, "head.fuse.0.weight")] == [0, 1, 4, 5]


def test_the_loss_is_a_mean_over_all_pixels_or_over_labelled_ones() -> None:
    logits = torch.zeros(1, 4, 2, 2)  # every answer costs ln 4
    masks = torch.tensor([[[0, 1], [IGNORED, IGNORED]]])
    assert float(pixel_loss(logits, masks, "labelled")) == pytest.approx(1.386294, abs=1e-6)
    assert float(pixel_loss(logits, masks, "all")) == pytest.approx(0.693147, abs=1e-6)
    assert float(pixel_loss(logits, torch.full((1, 2, 2), IGNORED), "labelled")) == 0


def test_a_run_far_below_the_published_curve_says_so() -> None:
    recipe = segmentation_mae()
    full = cast(SegmentationSet, _Named("ade20k", 2000))
    assert recipe.published_curve == MAE_CURVE
    assert recipe._behind([], full) == recipe._behind([0.31], full) == []
    (sentence,) = recipe._behind([0.30, 0.48], full)
    assert sentence == "after 16,000 iterations mIoU was 30.00 %, far below the published run's 38.65 %"
    assert recipe._behind([0.30], cast(SegmentationSet, _Named("facade", 2000))) == []
    assert recipe._behind([0.30], cast(SegmentationSet, _Named("ade20k", 200))) == []


class _Named:
    def __init__(self, name: str, images: int) -> None:
        self.name, self.images = name, images

    def __len__(self) -> int:
        return self.images


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"blocks": (3, 2, 1, 0)}, "blocks"),
        ({"relative_bias": True, "test": SlidingTest(whole=True)}, "relative positions are of one window's size"),
        ({"ratios": (2.0, 0.5)}, "ratios"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SegmentationUPerNet(**changes)


def test_windows_that_leave_pixels_out_are_refused() -> None:
    with pytest.raises(ValueError, match=r"strides has 600, more than SlidingTest.crop 512.*lower it"):
        SlidingTest(strides=(341, 600))
    with pytest.raises(ValueError, match="nothing would be scored"):
        SlidingTest(strides=())


def test_a_network_that_is_too_shallow_is_refused() -> None:
    with pytest.raises(ValueError, match="has no block 9; choose blocks of 0 to 3"):
        replace(SMALL, blocks=(0, 1, 2, 9)).network(Backbone(TINY), 5)


def test_passes_of_one_image_are_refused() -> None:
    check_pass(2, 16)
    with pytest.raises(ValueError, match=r"machine\.micro_batch leaves one image a pass"):
        check_pass(16, 1)
    with pytest.raises(ValueError, match=r"training\.effective_batch leaves one image a pass"):
        check_pass(1, 16)


def test_a_killed_training_goes_on_bit_for_bit(
    small_masks: Data, cpu: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(SMALL, data=small_masks, training=replace(SMALL.training, iterations=6, validations=2))
    checkpoint = random_checkpoint(RandomInit(arch=TINY), seed=0)
    model = load_backbone(checkpoint, what="random")
    machine = replace(cpu, save_every_s=0.0)
    ctx = Context(data=small_masks, machine=machine, seed=0, folder=tmp_path / "whole", subject=checkpoint.meta)
    ctx.folder.mkdir()
    whole = list(recipe.run(model, ctx))
    log = read_log(ctx.folder, "miou")
    assert [step for step, _ in log] == [2, 5]
    left = iter(range(4))
    real = SegmentationModel.forward

    def killed(self: SegmentationModel, batch: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(SegmentationModel, "forward", killed)
    again = replace(ctx, folder=tmp_path / "again", warnings=[])
    again.folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        list(recipe.run(model, again))
    assert (again.folder / "resume.pt").exists()
    monkeypatch.setattr(SegmentationModel, "forward", real)
    assert list(recipe.run(model, again)) == whole
    assert read_log(again.folder, "miou") == log
    assert not (again.folder / "resume.pt").exists()
    assert again.warnings == ctx.warnings
