"""CIM's networks and loss: shapes, hand arithmetic, equalities that the fast path rests on, and what may train."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F

from cim_bench.data.images import ImageSet
from cim_bench.engine.samples import Augmented
from cim_bench.models.positions import interpolate_positions, sincos_positions
from cim_bench.pretrain.cim.ema import cosine_momentum, ema_update
from cim_bench.pretrain.cim.exemplars import correlation_maps
from cim_bench.pretrain.cim.method import CIM, CIMModel
from cim_bench.pretrain.cim.prior import LEVELS, position_prior
from cim_bench.spec import Arch, Data

PRETEXT = CIM(context_size=32, exemplar_size=16, num_exemplars=3, decoder_dim=48, decoder_heads=4)


@pytest.fixture
def model(tiny_arch: Arch) -> CIMModel:
    torch.manual_seed(0)
    return PRETEXT.build(tiny_arch)


@pytest.fixture
def batch(tiny_arch: Arch, small_photos: Data) -> dict[str, torch.Tensor]:
    samples = Augmented(ImageSet(small_photos, "train"), PRETEXT.inputs(tiny_arch), 0)
    return torch.utils.data.default_collate([samples[0, i] for i in range(4)])


def test_sizes(batch: dict[str, torch.Tensor]) -> None:
    assert batch["context"].shape == (4, 3, 32, 32)
    assert batch["exemplars"].shape == (4, 3, 3, 16, 16)
    assert batch["boxes"].shape == (4, 3, 5)


def test_loss_is_two_class_cross_entropy_of_upsampled_maps_summed_over_exemplars(
    model: CIMModel, batch: dict[str, torch.Tensor]
) -> None:
    """The published form, written out: both channels, class token kept to the end, bilinear with aligned corners."""
    context, exemplars = model.pixels(batch)
    seen = model.encode(model.target, context, model.context_positions)
    maps = correlation_maps(batch["boxes"], model.side, 32).long()
    position = sincos_positions(48, 4)
    expected = torch.zeros(())
    for e in range(3):
        shown = model.encode(model.online, exemplars[:, e], model.exemplar_positions)
        queries = model.decoder_embed(seen) + position
        x = model.decoder_norm(model.decoder_block(queries, model.decoder_embed(shown)[:, None])[:, 0])
        grid = x[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
        logits = F.interpolate(model.decoder_pred(grid), (32, 32), mode="bilinear", align_corners=True)
        expected = expected + F.cross_entropy(logits, maps[:, e])
    assert model(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_trains(model: CIMModel, batch: dict[str, torch.Tensor]) -> None:
    model(batch)["loss"].backward()
    frozen = {name for name, p in model.named_parameters() if p.grad is None}
    expected = {n for n, _ in model.named_parameters() if n.startswith("target.")}
    expected |= {"online.pos_embed", "online.patch_embed.proj.weight", "online.patch_embed.proj.bias"}
    assert frozen == expected


def test_initialisation(model: CIMModel, tiny_arch: Arch) -> None:
    """The maps' layer: N(0, 1) under torch's default bias, as the public code's rule for convolutions gives; or Xavier.

    Others: Xavier linears; class token N(0, 0.02); the frozen patch projection uniform up to √(6 / (3 p² + dim)).
    """
    torch.manual_seed(0)
    wide = CIM(context_size=32, exemplar_size=16, decoder_dim=4096, decoder_heads=16).build(tiny_arch)
    assert wide.decoder_pred.weight.std().item() == pytest.approx(1.0, rel=0.05)
    assert 0 < wide.decoder_pred.bias.abs().max().item() <= 4096**-0.5
    flat = replace(PRETEXT, map_std=None).build(tiny_arch)
    assert flat.decoder_pred.weight.abs().max().item() <= math.sqrt(6 / 50)
    assert flat.decoder_pred.bias.abs().sum().item() == 0
    proj = model.online.patch_embed.proj.weight
    assert proj.abs().max().item() == pytest.approx(math.sqrt(6 / (3 * 64 + 48)), rel=0.01)
    assert model.online.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(math.sqrt(2 / (48 + 192)), rel=0.05)
    assert wide.decoder_embed.weight.std().item() == pytest.approx(math.sqrt(2 / (48 + 4096)), rel=0.05)
    assert model.online.cls_token.std().item() == pytest.approx(0.02, rel=0.4)


def test_target_follows_by_the_cosine(model: CIMModel) -> None:
    assert cosine_momentum(0.0, 0.99, 1.0) == pytest.approx(0.99)
    assert cosine_momentum(0.5, 0.99, 1.0) == pytest.approx(1 - 0.01 * (math.cos(math.pi / 2) + 1) / 2)
    assert cosine_momentum(1.0, 0.99, 1.0) == pytest.approx(1.0)
    before = model.target.norm.bias.clone()
    with torch.no_grad():
        model.online.norm.bias.add_(1.0)
    ema_update(model.target, model.online, 0.9)
    assert torch.allclose(model.target.norm.bias, before + 0.1)


def test_exported_weights_are_a_plain_timm_state(model: CIMModel, tiny_arch: Arch) -> None:
    for which in ("online", "ema"):
        net = timm.create_model(tiny_arch.name, img_size=32, num_classes=0, **tiny_arch.options)
        net.load_state_dict(model.backbone_state(which))  # type: ignore[arg-type]


def test_features_of_the_export_are_those_of_training(
    model: CIMModel, tiny_arch: Arch, batch: dict[str, torch.Tensor]
) -> None:
    net = timm.create_model(tiny_arch.name, img_size=32, num_classes=0, **tiny_arch.options).eval()
    net.load_state_dict(model.backbone_state("online"))
    images = (batch["context"].float() / 255 - model.pixel[0]) / model.pixel[1]
    expected = model.encode(model.online, batch["context"], model.online.pos_embed)
    assert torch.allclose(net.forward_features(images), expected, atol=1e-5)


def test_device_cut_gives_the_same_loss(tiny_arch: Arch, small_photos: Data) -> None:
    losses = []
    for cut_on in ("worker", "device"):
        pretext = replace(PRETEXT, cut_on=cut_on)  # type: ignore[arg-type]
        torch.manual_seed(0)
        model = pretext.build(tiny_arch)
        samples = Augmented(ImageSet(small_photos, "train"), pretext.inputs(tiny_arch), 0)
        losses.append(model(torch.utils.data.default_collate([samples[0, i] for i in range(4)]))["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_contrastive_term(tiny_arch: Arch, batch: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = replace(PRETEXT, sigma_cont=0.5).build(tiny_arch)
    outputs = model(batch)
    assert outputs["loss"].item() == pytest.approx((outputs["correlation"] + 0.5 * outputs["contrastive"]).item())
    outputs["loss"].backward()
    assert model.contrastive is not None
    assert all(p.grad is None for p in model.contrastive.target.parameters())
    model.after_step(0.0)


def test_sincos_positions_by_hand() -> None:
    """dim 4, grid 2: one frequency (1) a axis; columns first, then rows; sine then cosine; zero class row."""
    table = sincos_positions(4, 2)[0]
    s, c = math.sin(1), math.cos(1)
    expected = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 1], [s, c, 0, 1], [0, 1, s, c], [s, c, s, c]])
    assert torch.allclose(table, expected.float())
    assert interpolate_positions(sincos_positions(8, 14), 10, "offset").shape == (1, 101, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "mobilenetv3_small_050", "options": {}}, "CIM, besides ResNets, pre-trains plain ViTs"),
        ({"options": {"patch_size": 5}, "image_size": 35}, "does not divide"),
    ],
)
def test_unfit_architectures_are_refused(tiny_arch: Arch, change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PRETEXT.build(replace(tiny_arch, **change))  # type: ignore[arg-type]


def test_held_out_by_its_own_parts(model: CIMModel, batch: dict[str, torch.Tensor]) -> None:
    """Losses as in training; each IoU is that of the threshold that the tuning images choose."""
    model.eval()
    sums = model.held_out(batch)
    tuning = {**sums, "iou": torch.eye(LEVELS)[10], "prior_iou": torch.eye(LEVELS)[20]}  # best at 0.2 and at 0.4
    metrics = model.held_out_metrics(sums, tuning)
    logits = model.predict(batch)[0]
    maps = correlation_maps(batch["boxes"], model.side, 32)
    prior = position_prior(model.side, 32, **PRETEXT.draws)
    assert metrics["val_loss"] == pytest.approx(model(batch)["loss"].item(), rel=1e-5)
    reference = 3 * F.binary_cross_entropy(prior.expand_as(logits), maps.float())
    assert metrics["val_reference_loss"] == pytest.approx(reference.item(), rel=1e-5)
    for name, shown in (("val_map_iou", logits.sigmoid() >= 0.2), ("val_reference_map_iou", prior >= 0.4)):
        iou = (shown & maps).sum(dim=(-1, -2)) / (shown | maps).sum(dim=(-1, -2))
        assert metrics[name] == pytest.approx(iou.mean().item(), rel=1e-5)
    assert metrics["val_map_threshold"] == 0.2


def test_pictures(model: CIMModel, batch: dict[str, torch.Tensor]) -> None:
    """Context and exemplars; maps tinted inside, darkened outside; the caption's IoU by hand; device cut alike."""
    figures = model.eval().pictures(batch)
    assert [[len(line) for line in lines] for lines in figures] == [[4, 4, 4]] * 4
    first, true, guess = figures[2]
    assert first[0] is not None
    assert first[0].image.equal(batch["context"][2])
    assert first[2] is not None
    assert first[2].image.equal(batch["exemplars"][2, 1])
    assert true[0] is None
    assert guess[0] is not None
    assert guess[0].title == "without exemplar"
    inside = correlation_maps(batch["boxes"], model.side, 32)[2, 1]
    logits = model.predict(batch)[0][2, 1]
    iou = (inside & (logits > 0)).sum() / (inside | (logits > 0)).sum()
    loss = F.binary_cross_entropy_with_logits(logits, inside.float())
    blind = F.binary_cross_entropy(model.prior(), inside.float())
    assert guess[2] is not None
    assert guess[2].title == f"predicted, IoU {iou:.2f}\nloss {loss:.2f}, without {blind:.2f}"
    assert true[2] is not None
    dark = (batch["context"][2] * 0.35).to(torch.uint8)
    assert true[2].image[:, ~inside].equal(dark[:, ~inside])
    assert (true[2].image[:, inside].float().mean(1) > dark[:, inside].float().mean(1)).all()
