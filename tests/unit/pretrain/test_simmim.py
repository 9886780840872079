"""SimMIM with its three families of encoders: loss by hand, no leak, initialisation, and training on photographs.

Equality with the public code is held by tests/parity/test_simmim_parity.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cim_bench.benchmark import Pretraining
from cim_bench.data.images import ImageSet
from cim_bench.engine.samples import Augmented
from cim_bench.jobs.identity import pretraining_key
from cim_bench.jobs.pretraining import pretrain
from cim_bench.models.backbone import create_net, load_backbone
from cim_bench.models.checkpoint import load_checkpoint
from cim_bench.models.key_contract import load_exact
from cim_bench.pretrain.blur import blurred_copy
from cim_bench.pretrain.masks import GREY, enlarge
from cim_bench.pretrain.simmim import MaskedBEiT, MaskedResNet, MaskedViT, SimMIM, SimMIMModel
from cim_bench.spec import Arch, Data, Machine, Training

PRETEXT = SimMIM(mask_patch=16)
SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
PUBLISHED = {"use_shared_rel_pos_bias": True, "use_rel_pos_bias": False, "init_values": 0.1, "global_pool": "token"}
ARCHS = {
    "beit": Arch(name="beit_base_patch16_224", image_size=64, options={**PUBLISHED, **SMALL}),
    "vit": Arch(name="vit_tiny_patch16_224", image_size=64, options=SMALL),
    "resnet": Arch(name="resnet10t", image_size=64),
}


@pytest.fixture(params=ARCHS)
def arch(request: pytest.FixtureRequest) -> Arch:
    return ARCHS[request.param]


@pytest.fixture
def model(arch: Arch) -> SimMIMModel:
    torch.manual_seed(0)
    return PRETEXT.build(arch)


@pytest.fixture(scope="module")
def batch(small_photos: Data) -> dict[str, torch.Tensor]:
    samples = Augmented(ImageSet(small_photos, "train"), PRETEXT.inputs(ARCHS["vit"]), 0)
    return torch.utils.data.default_collate([samples[0, i] for i in range(4)])


@pytest.fixture(scope="module")
def hidden(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(4, 1, 64, 64), true where hidden."""
    return enlarge(batch["mask"].unflatten(1, (4, 4)), 16)[:, None]


def test_sizes(batch: dict[str, torch.Tensor]) -> None:
    assert batch["image"].shape == (4, 3, 64, 64)
    assert batch["mask"].sum(1).tolist() == [10, 10, 10, 10]  # 9.6 of 16 squares, rounded up


def test_families() -> None:
    for name, family in (("beit", MaskedBEiT), ("vit", MaskedViT), ("resnet", MaskedResNet)):
        encoder = PRETEXT.build(ARCHS[name]).encoder
        assert type(encoder) is family
        assert encoder.stride == (32 if name == "resnet" else 8)


def test_loss_by_hand(batch: dict[str, torch.Tensor], hidden: torch.Tensor) -> None:
    """A head that always says 0: the mean absolute normalised pixel of the hidden squares."""
    model = PRETEXT.build(ARCHS["vit"])
    head = model.decoder[0]
    assert isinstance(head, nn.Conv2d)
    for value in head.parameters():
        nn.init.zeros_(value)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))
    images = (batch["image"].float() / 255 - mean) / std
    expected = images.abs()[hidden.expand(-1, 3, -1, -1)].mean()
    assert model(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_hidden_pixels_do_not_reach_the_predictions(
    model: SimMIMModel, batch: dict[str, torch.Tensor], hidden: torch.Tensor
) -> None:
    model.eval()
    changed = {**batch, "image": torch.where(hidden, 255 - batch["image"], batch["image"])}
    assert torch.equal(model.predict(batch)[0], model.predict(changed)[0])
    seen = {**batch, "image": torch.where(hidden, batch["image"], 255 - batch["image"])}
    assert not torch.allclose(model.predict(batch)[0], model.predict(seen)[0])


def test_nothing_hidden_gives_the_exported_features(
    model: SimMIMModel, arch: Arch, batch: dict[str, torch.Tensor]
) -> None:
    images = model.predict(batch)[1]
    net = create_net(arch, num_classes=0).eval()
    load_exact(net, model.backbone_state("online"), what="SimMIM")
    expected = net.forward_features(images)
    found = model.eval().encoder(images, torch.zeros(4, 4, 4, dtype=torch.bool))
    if expected.ndim == 3:
        found = torch.cat([expected[:, :1], found.flatten(2).transpose(1, 2)], dim=1)
    assert torch.allclose(found, expected, atol=1e-5)


def test_head_puts_each_cell_where_it_belongs(batch: dict[str, torch.Tensor]) -> None:
    """With a bias alone, a prediction repeats one square of stride x stride pixels."""
    model = PRETEXT.build(ARCHS["vit"])
    head = model.decoder[0]
    assert isinstance(head, nn.Conv2d)
    nn.init.zeros_(head.weight)
    predicted = model.predict(batch)[0]
    assert predicted.shape == (4, 3, 64, 64)
    assert head.bias is not None
    assert torch.equal(predicted[0, :, :8, :8], head.bias.view(3, 8, 8))
    assert torch.equal(predicted[0, :, 8:16, 24:32], head.bias.view(3, 8, 8))


def test_initialisation_of_transformers() -> None:
    """N(0, 0.02) cut off at 0.02, and the last layers of block i divided by the root of 2 i."""
    for name in ("beit", "vit"):
        model = PRETEXT.build(ARCHS[name])
        net = model.encoder.net
        assert 0.019 < net.blocks[1].attn.qkv.weight.abs().max() <= 0.02
        for i, block in enumerate(net.blocks, start=1):
            for layer in (block.attn.proj, block.mlp.fc2):
                bound = 0.02 / (2 * i) ** 0.5
                assert 0.95 * bound < layer.weight.abs().max() <= bound * (1 + 1e-6)
        assert 0 < model.encoder.mask_token.abs().max() <= 0.02
        assert not net.patch_embed.proj.bias.any()
    assert net.pos_embed is not None
    assert not net.pos_embed.requires_grad
    assert ARCHS["beit"].options["init_values"] == 0.1
    assert torch.equal(PRETEXT.build(ARCHS["beit"]).encoder.net.blocks[0].gamma_1, torch.full((48,), 0.1))


def test_everything_trains(model: SimMIMModel, batch: dict[str, torch.Tensor]) -> None:
    model(batch)["loss"].backward()
    assert {n for n, p in model.named_parameters() if p.grad is None} <= {"encoder.net.pos_embed"}


def test_drop_path_is_of_training_alone(batch: dict[str, torch.Tensor], arch: Arch) -> None:
    model = replace(PRETEXT, drop_path=0.5).build(arch)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm starts a ResNet with silent branches: nothing to drop
            nn.init.ones_(module.weight)
    torch.manual_seed(0)
    assert model(batch)["loss"].item() != model(batch)["loss"].item()
    model.eval()
    assert model(batch)["loss"].item() == model(batch)["loss"].item()


def test_constant_loss(model: SimMIMModel, batch: dict[str, torch.Tensor], hidden: torch.Tensor) -> None:
    model.eval()
    sums = model.held_out(batch)
    metrics = model.held_out_metrics(sums, sums)
    assert metrics["val_loss"] == pytest.approx(model(batch)["loss"].item(), rel=1e-5)
    images = model.predict(batch)[1]
    losses = []
    for image, mask in zip(images, hidden[:, 0], strict=True):
        colour = image[:, ~mask].mean(1, keepdim=True)
        losses.append((image[:, mask] - colour).abs().mean())
    assert metrics["val_constant_loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    blurred = [
        ((blurred_copy(images, hidden, width) - images).abs() * hidden).sum() / (3 * hidden.sum())
        for width in (4, 8, 16, 32)
    ]
    assert metrics["val_blurred_loss"] == pytest.approx(torch.stack(blurred).min().item(), rel=1e-4)
    assert metrics["val_reference_loss"] == min(metrics["val_constant_loss"], metrics["val_blurred_loss"])


def test_pictures(batch: dict[str, torch.Tensor], hidden: torch.Tensor) -> None:
    model = PRETEXT.build(ARCHS["beit"]).eval()
    for lines, image, mask in zip(model.pictures(batch), batch["image"], hidden, strict=True):
        ((original, shown, rebuilt),) = lines
        assert original is not None
        assert shown is not None
        assert rebuilt is not None
        assert shown.title == "62% hidden"
        assert torch.equal(original.image, image)
        assert torch.equal(shown.image, torch.where(mask, torch.tensor(GREY, dtype=torch.uint8), image))
        assert torch.equal(rebuilt.image[~mask.expand(3, -1, -1)], image[~mask.expand(3, -1, -1)])


def test_no_ema_encoder(model: SimMIMModel) -> None:
    with pytest.raises(ValueError, match="no EMA encoder; set export to online"):
        model.backbone_state("ema")


@pytest.mark.parametrize(
    ("mask_patch", "arch", "words"),
    [
        (24, ARCHS["vit"], "64 pixels does not divide into squares of mask_patch 24"),
        (4, ARCHS["vit"], "mask_patch 4 does not divide by the patch of 8"),
        (16, Arch(name="resnet10t", image_size=48), "size 48 does not divide by the stride of 32"),
        (64, ARCHS["vit"], "mask_ratio 0.6 hides 1 of 1"),
        (16, replace(ARCHS["beit"], options={**PUBLISHED, **SMALL, "global_pool": "avg"}), "global_pool=token"),
        (16, Arch(name="convnext_tiny", image_size=64), "convnext_tiny is not one"),
    ],
)
def test_bad_settings_are_refused(mask_patch: int, arch: Arch, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SimMIM(mask_patch=mask_patch).build(arch)


def test_training_on_photographs(arch: Arch, small_photos: Data, cpu: Machine, tmp_path: Path) -> None:
    training = Training(epochs=6, warmup_epochs=1, effective_batch=16, base_lr=0.02)
    recipe = Pretraining(
        pretext=replace(PRETEXT, drop_path=0.0), arch=arch, data=small_photos, training=training, machine=cpu
    )
    meta = pretrain(recipe, tmp_path, pretraining_key(recipe, "photos"))
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    held_out = [line for line in log if "val_loss" in line]
    assert held_out[-1]["val_loss"] < held_out[0]["val_loss"]
    assert meta.method == "SimMIM"
    backbone = load_backbone(load_checkpoint(tmp_path / "checkpoint"), what="checkpoint")
    assert torch.isfinite(backbone(torch.rand(2, 3, 64, 64))).all()
