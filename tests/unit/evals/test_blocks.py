"""Features of blocks inside a transformer: by timm's own way, and as k-NN and linear probing report them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cim_bench.benchmark import RandomInit
from cim_bench.contracts.context import Context
from cim_bench.evals.knn import KNN
from cim_bench.evals.linear_probe import LinearProbe
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.records.measurement import Measurement
from cim_bench.spec import Arch, Data, Machine, Training

TRAINING = Training(epochs=3, effective_batch=16, base_lr=0.1, optimizer="lars", weight_decay=0.0)


@pytest.fixture
def model(tiny_arch: Arch) -> Backbone:
    return load_backbone(random_checkpoint(RandomInit(arch=tiny_arch), 0), what="random")


@pytest.mark.parametrize("kind", ["cls", "mean_patch"])
def test_vectors_are_those_of_timm(kind: Any, model: Backbone) -> None:
    images = torch.rand(3, 3, 32, 32)
    found = model.features(images, kind, (2, 1))
    inside = model.net.forward_intermediates(
        model.normalize(images), norm=False, output_fmt="NLC", intermediates_only=True, return_prefix_tokens=True
    )
    vectors = [prefix[:, 0] if kind == "cls" else patches.mean(1) for patches, prefix in inside]
    assert torch.allclose(found[:, 0], model.feature(images, kind))
    assert torch.allclose(found[:, 1], vectors[1])
    assert torch.allclose(found[:, 2], vectors[0])
    assert not any(block._forward_hooks for block in model.net.blocks)


def measure(evaluator: Any, model: Backbone, data: Data, cpu: Machine, folder: Path) -> dict[Any, Measurement]:
    meta = random_checkpoint(RandomInit(arch=model.arch), 0).meta
    context = Context(data=data, machine=cpu, seed=0, folder=folder, subject=meta)
    return {tuple(sorted(m.facets.items())): m for m in evaluator.run(model, context)}


def test_knn_sweeps_blocks(model: Backbone, small_photos: Data, cpu: Machine, tmp_path: Path) -> None:
    plain = measure(KNN(k=(1, 5), feature="mean_patch"), model, small_photos, cpu, tmp_path / "a")
    swept = measure(KNN(k=(1, 5), feature="mean_patch", blocks=(1, 2)), model, small_photos, cpu, tmp_path / "b")
    assert {name: swept[name] for name in plain} == plain
    more = {(("block", block), ("k", k)) for block in (1, 2) for k in (1, 5)}
    assert swept.keys() == plain.keys() | more


@pytest.mark.parametrize("augment", ["none", "crop"])
def test_a_head_beside_others_learns_what_it_learns_alone(
    augment: Any, model: Backbone, small_photos: Data, cpu: Machine, tmp_path: Path
) -> None:
    probe = LinearProbe(feature="mean_patch", augment=augment, training=TRAINING)
    alone = measure(probe, model, small_photos, cpu, tmp_path / "a")
    swept = LinearProbe(feature="mean_patch", augment=augment, training=TRAINING, blocks=(2, 1))
    beside = measure(swept, model, small_photos, cpu, tmp_path / "b")
    assert beside[()] == alone[()]
    assert beside.keys() == {(), (("block", 1),), (("block", 2),)}


@pytest.mark.parametrize(
    ("evaluator", "words"),
    [
        (KNN(feature="mean_patch", blocks=(1, 9)), "has no block 9; choose from 1 to 2"),
        (KNN(feature="pool", blocks=(1,)), "has no blocks with a 'pool' feature; leave blocks empty"),
    ],
)
def test_a_block_that_does_not_exist(
    evaluator: KNN, words: str, model: Backbone, small_photos: Data, cpu: Machine, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        measure(evaluator, model, small_photos, cpu, tmp_path)


def test_clipping_would_tie_heads_together() -> None:
    clipped = Training(epochs=3, effective_batch=16, base_lr=0.1, optimizer="lars", weight_decay=0.0, clip_grad=1.0)
    with pytest.raises(ValueError, match=r"clip_grad is 1\.0, which would tie the heads"):
        LinearProbe(training=clipped, blocks=(1,))
