"""CIM on ResNets: tokens are cells of the last map, and each branch keeps the statistics of what it was shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_bench.benchmark import Pretraining
from cim_bench.data.images import ImageSet
from cim_bench.engine.fit import fit
from cim_bench.engine.samples import Augmented
from cim_bench.engine.schedule import weight_decay_groups
from cim_bench.jobs.pretraining import pretrain
from cim_bench.pretrain.cim.ema import ema_update
from cim_bench.pretrain.cim.exemplars import correlation_maps
from cim_bench.pretrain.cim.method import CIM, CIMModel
from cim_bench.spec import Arch, Data, Machine, Training

ARCH = Arch(
    name="resnet10t",
    image_size=64,
    options={"channels": (8, 16, 32, 64), "stem_width": 8, "output_stride": 16},
)
PRETEXT = CIM(
    context_size=64,
    exemplar_size=32,
    num_exemplars=3,
    max_degrees=0,
    photometric=False,
    decoder_dim=48,
    decoder_heads=4,
)


@pytest.fixture
def model() -> CIMModel:
    torch.manual_seed(0)
    return PRETEXT.build(ARCH)


@pytest.fixture
def batch(small_photos: Data) -> dict[str, Tensor]:
    samples = Augmented(ImageSet(small_photos, "train"), PRETEXT.inputs(ARCH), 0)
    return torch.utils.data.default_collate([samples[0, i] for i in range(8)])


def statistics(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.named_buffers() if "running" in name}


def test_grids_come_from_the_networks_stride(model: CIMModel) -> None:
    assert model.grids == [4, 2]
    whole = replace(PRETEXT, context_size=224, exemplar_size=64).build(Arch(name="resnet18", image_size=224))
    assert whole.grids == [7, 2]
    tokens = whole.encode(whole.target, torch.zeros(1, 3, 224, 224, dtype=torch.uint8), whole.context_positions)
    assert tokens.shape == (1, 49, 512)


def test_loss_by_hand(model: CIMModel, batch: dict[str, Tensor]) -> None:
    """Feature maps of timm's own forward, row by row; two-class cross entropy summed over exemplars."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))
    seen = model.target.forward_features((batch["context"].float() / 255 - mean) / std)
    pixels = (batch["exemplars"].float() / 255 - mean) / std
    shown = model.online.forward_features(pixels.flatten(0, 1)).unflatten(0, (8, 3))  # one batch: BatchNorm sees all
    maps = correlation_maps(batch["boxes"], 64, 64).long()
    queries = model.decoder_embed(seen.permute(0, 2, 3, 1).flatten(1, 2)) + model.decoder_positions
    expected = torch.zeros(())
    for e in range(3):
        keys = model.decoder_embed(shown[:, e].permute(0, 2, 3, 1).flatten(1, 2))
        x = model.decoder_norm(model.decoder_block(queries, keys[:, None])[:, 0])
        logits = model.decoder_pred(x.transpose(1, 2).unflatten(2, (4, 4)))
        logits = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=True)
        expected = expected + F.cross_entropy(logits, maps[:, e])
    assert model(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_all_of_the_online_network_trains(model: CIMModel, batch: dict[str, Tensor]) -> None:
    model(batch)["loss"].backward()
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.grad is None} == {"target"}


def test_each_branch_keeps_the_statistics_of_what_it_was_shown(model: CIMModel, batch: dict[str, Tensor]) -> None:
    """The first layer's running mean by hand, a tenth of the way: of contexts in the target, of exemplars online."""
    images = {"target": batch["context"], "online": batch["exemplars"].flatten(0, 1)}
    model(batch)
    for name, net in (("target", model.target), ("online", model.online)):
        pixels = (images[name].float() / 255 - model.pixel[0]) / model.pixel[1]
        expected = 0.1 * net.conv1[0](pixels).mean(dim=(0, 2, 3))
        assert torch.allclose(net.conv1[1].running_mean, expected, atol=1e-5), name
    assert not model.target.bn1.running_mean.allclose(model.online.bn1.running_mean, atol=1e-3)


def test_following_the_online_weights_leaves_statistics_alone(model: CIMModel, batch: dict[str, Tensor]) -> None:
    model(batch)
    before, weight = statistics(model.target), model.target.conv1[0].weight.clone()
    with torch.no_grad():
        model.online.conv1[0].weight.add_(1.0)
    model.after_step(0.0)
    assert all(value.equal(before[name]) for name, value in statistics(model.target).items())
    assert torch.allclose(model.target.conv1[0].weight, weight + 0.01)
    ema_update(model.target, model.online, 0.0)
    assert model.target.conv1[0].weight.equal(model.online.conv1[0].weight)


def test_held_out_uses_and_keeps_running_statistics(model: CIMModel, batch: dict[str, Tensor]) -> None:
    model(batch)
    model.eval()
    before = statistics(model)
    one = {name: value[:1] for name, value in batch.items()}
    parts = [model.held_out({k: v[i : i + 1] for k, v in batch.items()})["loss"] for i in range(8)]
    assert model.held_out(batch)["loss"].item() == pytest.approx(sum(p.item() for p in parts), rel=1e-4)
    assert model.held_out(one)["maps"] == 3
    assert all(value.equal(before[name]) for name, value in statistics(model).items())


def test_exports_load_exactly_with_their_own_statistics(model: CIMModel, batch: dict[str, Tensor]) -> None:
    model(batch)
    for which, net in (("online", model.online), ("ema", model.target)):
        state = model.backbone_state(which)  # type: ignore[arg-type]
        loaded = timm.create_model(ARCH.name, num_classes=0, **ARCH.options)
        loaded.load_state_dict(state)
        assert loaded.bn1.running_mean.equal(net.bn1.running_mean)


def test_unfit_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="size 40 does not divide by the stride of 16 pixels of resnet10t"):
        replace(PRETEXT, context_size=40).build(ARCH)
    with pytest.raises(ValueError, match=r"needs a class token, which resnet10t.* set sigma_cont to 0"):
        replace(PRETEXT, sigma_cont=0.5).build(ARCH)


def test_training_on_photos_learns(small_photos: Data, tmp_path: Path) -> None:
    recipe = Pretraining(
        pretext=PRETEXT,
        arch=ARCH,
        data=small_photos,
        export="ema",
        training=Training(
            epochs=10, warmup_epochs=1, effective_batch=24, base_lr=2e-2, betas=(0.9, 0.95), clip_grad=1.0
        ),
        machine=Machine(device="cpu", workers=0, micro_batch=24, log_every=1),
    )
    pretrain(recipe, tmp_path, "key")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-5:]) / 5 < 0.85 * sum(losses[:3]) / 3
    assert lines[-1]["val_loss"] < losses[0]


def test_killed_and_resumed_run_has_the_same_weights_and_statistics(small_photos: Data, tmp_path: Path) -> None:
    """A run cut off after two of its steps and started again, against one that was never interrupted."""

    class KilledError(Exception):
        pass

    def train(folder: Path, stop: int) -> CIMModel:
        torch.manual_seed(0)
        model, taken = PRETEXT.build(ARCH), []

        def after(progress: float) -> None:
            taken.append(progress)
            if len(taken) > stop:
                raise KilledError
            model.after_step(progress)

        fit(
            model,
            Augmented(ImageSet(small_photos, "train"), PRETEXT.inputs(ARCH), 0),
            weight_decay_groups(model, 0.05),
            training=Training(epochs=2, effective_batch=24, base_lr=1e-2),
            machine=Machine(device="cpu", workers=0, micro_batch=12, save_every_s=0),
            seed=0,
            folder=folder,
            title="cim",
            after_step=after,
        )
        return model

    whole = train(tmp_path / "whole", 99)
    with pytest.raises(KilledError):
        train(tmp_path / "cut", 2)
    resumed = train(tmp_path / "cut", 99)
    assert len(statistics(resumed)) == 2 * 2 * sum(isinstance(m, nn.BatchNorm2d) for m in whole.online.modules())
    for name, value in resumed.state_dict().items():
        assert value.equal(whole.state_dict()[name]), name
