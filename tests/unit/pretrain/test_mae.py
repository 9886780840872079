"""MAE: its loss by hand, what the encoder may see, how it starts, and training on real photographs.

Equality with the public code is held by tests/parity/test_mae_parity.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cim_bench.benchmark import Pretraining
from cim_bench.data.images import ImageSet
from cim_bench.engine.samples import Augmented
from cim_bench.jobs.identity import pretraining_key
from cim_bench.jobs.pretraining import pretrain, unlearned
from cim_bench.models.backbone import create_net, load_backbone
from cim_bench.models.checkpoint import load_checkpoint
from cim_bench.models.key_contract import load_exact
from cim_bench.pretrain.blur import blurred_copy
from cim_bench.pretrain.mae import MAE, MAEModel, from_patches, patch_statistics, to_patches
from cim_bench.pretrain.masks import GREY, enlarge
from cim_bench.spec import Arch, Data, Machine, Training

PRETEXT = MAE(decoder_dim=32, decoder_depth=2, decoder_heads=4)


@pytest.fixture
def model(tiny_arch: Arch) -> MAEModel:
    torch.manual_seed(0)
    return PRETEXT.build(tiny_arch)


@pytest.fixture(scope="module")
def batch(tiny_arch: Arch, small_photos: Data) -> dict[str, torch.Tensor]:
    samples = Augmented(ImageSet(small_photos, "train"), PRETEXT.inputs(tiny_arch), 0)
    return torch.utils.data.default_collate([samples[0, i] for i in range(4)])


def pixel_mask(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(B, 1, 32, 32), true where hidden."""
    return enlarge(batch["mask"].unflatten(1, (4, 4)), 8)[:, None]


def test_sizes(batch: dict[str, torch.Tensor]) -> None:
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["mask"].sum(1).tolist() == [12, 12, 12, 12]


def test_loss_by_hand() -> None:
    """One patch of 12 values 0..11: mean 5.5, squares around it 143, unbiased variance 13; and a prediction of 0."""
    model = replace(PRETEXT, mask_ratio=0.5).build(
        Arch(name="vit_tiny_patch16_224", image_size=4, options={"patch_size": 2, "embed_dim": 8, "num_heads": 2})
    )
    pixels = torch.arange(12.0).view(1, 1, 12)
    target = model.target(pixels)
    assert torch.allclose(target, (pixels - 5.5) / (13 + 1e-6) ** 0.5)
    assert target.square().mean().item() == pytest.approx(143 / 13 / 12, rel=1e-5)
    assert torch.equal(of_pixels(model).target(pixels), pixels)


def of_pixels(model: MAEModel) -> MAEModel:
    model.settings = replace(model.settings, norm_pix_loss=False)
    return model


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_loss_is_the_mean_over_hidden_patches(
    model: MAEModel, batch: dict[str, torch.Tensor], norm_pix_loss: bool
) -> None:
    """Written out patch by patch, from pixels of the image."""
    model.settings = replace(model.settings, norm_pix_loss=norm_pix_loss)
    predicted = model.predict(batch)[0]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))
    errors = []
    for b in range(4):
        images = (batch["image"][b].float() / 255 - mean) / std
        for order, place in enumerate(batch["mask"][b].nonzero().flatten().tolist()):
            row, column = divmod(place, 4)
            patch = images[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].permute(1, 2, 0).flatten()
            if norm_pix_loss:
                patch = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            errors.append((predicted[b, order] - patch).square().mean())
    assert len(errors) == 48
    assert model(batch)["loss"].item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


def test_hidden_pixels_do_not_reach_the_predictions(model: MAEModel, batch: dict[str, torch.Tensor]) -> None:
    changed = {**batch, "image": torch.where(pixel_mask(batch), 255 - batch["image"], batch["image"])}
    assert torch.equal(model.predict(batch)[0], model.predict(changed)[0])
    seen = {**batch, "image": torch.where(pixel_mask(batch), batch["image"], 255 - batch["image"])}
    assert not torch.allclose(model.predict(batch)[0], model.predict(seen)[0])


def test_projecting_visible_patches_equals_the_convolution(model: MAEModel, batch: dict[str, torch.Tensor]) -> None:
    """With every patch visible, tokens are those of the exported network."""
    places = torch.arange(16).expand(4, -1)
    patches = model.normalise(to_patches(batch["image"], 8))
    images = (batch["image"].float() / 255 - model.pixel[0].view(3, 1, 1)) / model.pixel[1].view(3, 1, 1)
    expected = model.encoder.forward_features(images)
    assert torch.allclose(model.encode(patches, places), expected, atol=1e-5)


def test_patches_and_back() -> None:
    images = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8)
    patches = to_patches(images, 4)
    assert patches.shape == (2, 4, 48)
    assert patches[0, 1, :4].tolist() == [4, 68, 132, 5]  # second patch: column 4 in each channel, then column 5
    assert torch.equal(from_patches(patches, 4), images)


def test_initialisation(model: MAEModel) -> None:
    """Xavier bounds, zero biases, N(0, 0.02) tokens, frozen positions (models_mae.py, initialize_weights)."""
    projection = model.encoder.patch_embed.proj
    assert projection.weight.abs().max().item() == pytest.approx((6 / (192 + 48)) ** 0.5, rel=1e-2)
    assert 0 < projection.bias.abs().max() <= 192**-0.5
    assert model.decoder_pred.weight.abs().max().item() == pytest.approx((6 / (32 + 192)) ** 0.5, rel=1e-2)
    qkv = model.decoder_blocks[0].attn.qkv
    assert qkv.weight.abs().max().item() == pytest.approx((6 / (32 + 96)) ** 0.5, rel=1e-2)
    assert not qkv.bias.any()
    assert 0.01 < model.mask_token.std() < 0.03
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {"encoder.pos_embed"}


def test_everything_else_trains(model: MAEModel, batch: dict[str, torch.Tensor]) -> None:
    model(batch)["loss"].backward()
    assert {n for n, p in model.named_parameters() if p.grad is None} == {"encoder.pos_embed"}


def test_constant_losses(model: MAEModel, batch: dict[str, torch.Tensor]) -> None:
    """0 against normalised pixels: (n - 1) / n of 192, but for flat patches; else the visible pixels' mean colour."""
    sums = model.held_out(batch)
    metrics = model.held_out_metrics(sums, sums)
    assert metrics["val_loss"] == pytest.approx(model(batch)["loss"].item(), rel=1e-5)
    assert metrics["val_constant_loss"] == pytest.approx(191 / 192, rel=1e-2)
    sums = of_pixels(model).held_out(batch)
    metrics = model.held_out_metrics(sums, sums)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))
    images, mask = (batch["image"].float() / 255 - mean) / std, pixel_mask(batch)
    colour = (images * ~mask).sum((2, 3), keepdim=True) / (4 * 64)
    expected = ((images - colour).square() * mask).sum() / (4 * 12 * 192)
    assert metrics["val_constant_loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("relative", [True, False])
def test_loss_of_a_blurred_copy(model: MAEModel, batch: dict[str, torch.Tensor], relative: bool) -> None:
    """Each width's copy, scaled around the constant as fits tuning images best; of them the best width there."""
    if not relative:
        of_pixels(model)
    half = [{k: v[i : i + 2] for k, v in batch.items()} for i in (0, 2)]
    metrics = model.held_out_metrics(model.held_out(half[0]), model.held_out(half[1]))
    losses = []
    for number, width in enumerate((2, 4, 8, 16)):
        parts = []
        for part in half:
            _, wanted, seen = model.predict(part)
            flat = 0.0 if relative else seen.unflatten(-1, (-1, 3)).mean(dim=(1, 2)).repeat(1, 64)[:, None]
            images = (part["image"].float() / 255 - model.pixel[0].view(3, 1, 1)) / model.pixel[1].view(3, 1, 1)
            copy = to_patches(blurred_copy(images, pixel_mask(part), width), 8)
            copy = model.target(torch.stack([c[m] for c, m in zip(copy, part["mask"], strict=True)]))
            assert torch.allclose(copy, model.copies(part)[number], atol=1e-5)
            parts.append((copy - flat, model.target(wanted) - flat))
        (copy, target), (copy_t, target_t) = parts
        scale = (copy_t * target_t).sum() / copy_t.square().sum()
        losses.append(((target_t - scale * copy_t).square().mean().item(), (target - scale * copy).square().mean()))
    assert metrics["val_blurred_loss"] == pytest.approx(min(losses, key=lambda pair: pair[0])[1].item(), rel=1e-4)
    assert metrics["val_reference_loss"] == min(metrics["val_constant_loss"], metrics["val_blurred_loss"])


def test_pictures(model: MAEModel, batch: dict[str, torch.Tensor]) -> None:
    for lines, image, mask in zip(model.pictures(batch), batch["image"], pixel_mask(batch), strict=True):
        ((original, shown, rebuilt),) = lines
        assert original is not None
        assert shown is not None
        assert rebuilt is not None
        assert shown.title == "75% hidden"
        assert torch.equal(original.image, image)
        assert torch.equal(shown.image, torch.where(mask, torch.tensor(GREY, dtype=torch.uint8), image))
        assert torch.equal(rebuilt.image[~mask.expand(3, -1, -1)], image[~mask.expand(3, -1, -1)])


def test_a_perfect_prediction_is_drawn_as_the_image(model: MAEModel, batch: dict[str, torch.Tensor]) -> None:
    _, wanted, seen = model.predict(batch)
    mean, std = patch_statistics(wanted)
    model.predict = lambda _: ((wanted - mean) / std, wanted, seen)  # type: ignore[method-assign, assignment]
    for lines, image in zip(model.pictures(batch), batch["image"], strict=True):
        assert lines[0][2] is not None
        assert lines[0][2].title == "reconstruction, loss 0.000"
        assert torch.equal(lines[0][2].image, image)


def test_export(model: MAEModel, tiny_arch: Arch) -> None:
    load_exact(create_net(tiny_arch, num_classes=0), model.backbone_state("online"), what="MAE")
    with pytest.raises(ValueError, match="no EMA encoder; set export to online"):
        model.backbone_state("ema")


@pytest.mark.parametrize(
    ("setting", "change", "words"),
    [
        ({}, {"name": "resnet18", "options": {}}, "MAE pre-trains plain ViTs"),
        ({}, {"image_size": 36}, "image_size 36 does not divide by options.patch_size 8"),
        ({}, {"image_size": 36, "options": {}}, "does not divide by the patch of 16 pixels"),
        ({"decoder_heads": 5}, {}, "decoder_dim 32 does not divide by decoder_heads 5"),
        ({"mask_ratio": 1.0}, {}, r"MAE.mask_ratio is 1\.0; it must be a number, above 0 and below 1"),
        ({"mask_ratio": 0.99}, {}, r"mask_ratio 0\.99 hides 16 of 16"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, Any], change: dict[str, Any], words: str, tiny_arch: Arch) -> None:
    with pytest.raises(ValueError, match=words):
        replace(PRETEXT, **setting).build(replace(tiny_arch, **change))


def test_training_on_photographs(tiny_arch: Arch, small_photos: Data, cpu: Machine, tmp_path: Path) -> None:
    training = Training(epochs=20, warmup_epochs=2, effective_batch=16, base_lr=0.016, betas=(0.9, 0.95))
    recipe = Pretraining(
        pretext=replace(PRETEXT, crop_scale=(0.7, 1.0)),
        arch=tiny_arch,
        data=small_photos,
        training=training,
        machine=cpu,
    )
    meta = pretrain(recipe, tmp_path, pretraining_key(recipe, "photos"))
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    held_out = [line for line in log if "val_loss" in line]
    assert held_out[-1]["val_loss"] < held_out[0]["val_loss"]
    assert held_out[-1]["val_loss"] < held_out[-1]["val_constant_loss"]
    assert meta.held_out == {name: value for name, value in held_out[-1].items() if name != "step"}
    assert meta.warning == unlearned(meta.held_out, MAEModel.reference)
    assert meta.method == "MAE"
    backbone = load_backbone(load_checkpoint(tmp_path / "checkpoint"), what="checkpoint")
    assert torch.isfinite(backbone(torch.rand(2, 3, 32, 32))).all()
