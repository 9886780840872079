"""MAE beside the public code, facebookresearch/mae: same weights, images and masks, same numbers.

    CIM_BENCH_PUBLIC_MAE=CHECKOUT pytest tests/parity/test_mae_parity.py
    CIM_BENCH_PUBLIC_MAE=CHECKOUT python -m tests.parity.test_mae_parity    # writes tests/golden/mae.json

The golden numbers are the public code's on a tiny model, and hold ours on machines without a checkout.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models import vision_transformer
from torch import Tensor, nn

from cim_bench.models.backbone import create_net
from cim_bench.models.key_contract import load_exact
from cim_bench.pretrain.mae import MAE, MAEModel
from cim_bench.pretrain.masks import split_mask
from cim_bench.spec import Arch
from tests.golden.weights import drawn

CHECKOUT, COMMIT, TOLERANCE = "CIM_BENCH_PUBLIC_MAE", "efb2a80", 1e-4
GOLDEN = Path(__file__).parents[1] / "golden" / "mae.json"
KEPT = 16  # values of each kind that the golden file holds


@dataclass(frozen=True)
class Size:
    """One model in the words of both sides."""

    arch: Arch
    decoder: dict[str, int]
    public: dict[str, Any]


TINY = Size(
    Arch(
        name="vit_tiny_patch16_224",
        image_size=32,
        options={"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
    ),
    {"decoder_dim": 32, "decoder_depth": 2, "decoder_heads": 4},
    {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 48,
        "depth": 2,
        "num_heads": 3,
        "decoder_embed_dim": 32,
        "decoder_depth": 2,
        "decoder_num_heads": 4,
    },
)
BASE = Size(Arch(), {}, {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12})


@contextmanager
def public_code(checkout: str) -> Iterator[Any]:
    """``models_mae`` under this timm, whose blocks have no ``qk_scale`` (None there), and without ``np.float``."""
    block = vision_transformer.Block
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(checkout)
        patch.setattr(np, "float", float, raising=False)
        patch.setattr(vision_transformer, "Block", lambda *args, qk_scale, **kwargs: block(*args, **kwargs))
        yield importlib.import_module("models_mae")
    for name in ("models_mae", "util", "util.pos_embed"):
        sys.modules.pop(name, None)


@pytest.fixture
def public() -> Iterator[Any]:
    checkout = os.environ.get(CHECKOUT, "")
    if not checkout:
        pytest.skip(f"{CHECKOUT} names no checkout of facebookresearch/mae")
    with public_code(checkout) as module:
        yield module


def public_model(module: Any, size: Size, norm_pix_loss: bool) -> Any:
    layer = partial(nn.LayerNorm, eps=1e-6)
    model = module.MaskedAutoencoderViT(**size.public, mlp_ratio=4, norm_layer=layer, norm_pix_loss=norm_pix_loss)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "pos_embed" not in name:
                value.copy_(drawn(name, value.shape))
    return model.eval()


def our_model(size: Size, norm_pix_loss: bool) -> MAEModel:
    """Ours with the same weights; names differ by the encoder's prefix alone."""
    model = MAE(norm_pix_loss=norm_pix_loss, **size.decoder).build(size.arch)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "pos_embed" not in name:
                value.copy_(drawn(name.removeprefix("encoder."), value.shape))
    return model.eval()


def make_batch(size: Size, images: int = 2) -> dict[str, Tensor]:
    draw, side = np.random.RandomState(0), size.arch.image_size
    patches = (side // size.public["patch_size"]) ** 2
    pixels = torch.from_numpy(draw.randint(0, 256, (images, 3, side, side), np.uint8))
    hidden = [torch.from_numpy(draw.permutation(patches)) >= patches // 4 for _ in range(images)]
    return {"image": pixels, "mask": torch.stack(hidden)}


def as_public(images: Tensor, model: MAEModel) -> Tensor:
    mean, std = model.pixel[:, :, None, None]
    return (images.float() / 255 - mean) / std


def run_public(model: Any, images: Tensor, mask: Tensor, ratio: float = 0.75) -> tuple[Tensor, Tensor, Tensor]:
    """Its loss, predictions and the encoder's features; its draw is replaced, so that it hides what `mask` says."""
    noise = mask.float() + torch.linspace(0, 0.5, mask.shape[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_, **__: noise)
        loss, predicted, _ = model(images, ratio)
        features = model.forward_encoder(images, 0.0)[0]
    return loss, predicted, features


def features_of(model: MAEModel, size: Size, images: Tensor) -> Tensor:
    net = create_net(size.arch, num_classes=0)
    load_exact(net, model.backbone_state("online"), what="the export")
    tokens: Tensor = net.eval().forward_features(images)
    return tokens


def in_order(features: Tensor, mask: Tensor) -> Tensor:
    """The public encoder keeps the drawn order; back to row-major."""
    noise = mask.float() + torch.linspace(0, 0.5, mask.shape[1])
    places = noise.argsort(dim=1).argsort(dim=1)
    patches = features[:, 1:].gather(1, places[..., None].expand(-1, -1, features.shape[-1]))
    return torch.cat([features[:, :1], patches], dim=1)


@pytest.mark.parametrize(
    ("size", "norm_pix_loss"),
    [(TINY, True), (TINY, False), pytest.param(BASE, True, marks=pytest.mark.slow)],
    ids=["tiny", "tiny-pixels", "base"],
)
def test_same_numbers_as_the_public_code(public: Any, size: Size, norm_pix_loss: bool) -> None:
    theirs, ours, batch = public_model(public, size, norm_pix_loss), our_model(size, norm_pix_loss), make_batch(size)
    images = as_public(batch["image"], ours)
    hidden = split_mask(batch["mask"], ours.hidden)[1]
    with torch.no_grad():
        loss, predicted, features = run_public(theirs, images, batch["mask"])
        wanted = predicted.gather(1, hidden[..., None].expand(-1, -1, predicted.shape[-1]))
        apart = {
            "features": (features_of(ours, size, images) - in_order(features, batch["mask"])).abs().max(),
            "predictions": (ours.predict(batch)[0] - wanted).abs().max(),
            "loss": (ours(batch)["loss"] - loss).abs(),
        }
    print({name: f"{float(value):.1e}" for name, value in apart.items()}, f"loss {float(loss):.6f}")
    assert max(apart.values()) < TOLERANCE


def test_same_gradients_as_the_public_code(public: Any) -> None:
    theirs, ours, batch = public_model(public, TINY, True), our_model(TINY, True), make_batch(TINY)
    run_public(theirs, as_public(batch["image"], ours), batch["mask"])[0].backward()
    ours(batch)["loss"].backward()
    trained = {name: value.grad for name, value in theirs.named_parameters() if value.requires_grad}
    mine = {name.removeprefix("encoder."): p.grad for name, p in ours.named_parameters() if p.requires_grad}
    assert mine.keys() == trained.keys()
    for name, gradient in mine.items():
        assert torch.allclose(gradient, trained[name], atol=1e-5), name


def test_golden() -> None:
    golden = json.loads(GOLDEN.read_text())
    batch = make_batch(TINY)
    for kind, norm_pix_loss in (("norm_pix_loss", True), ("pixels", False)):
        model = our_model(TINY, norm_pix_loss)
        assert model(batch)["loss"].item() == pytest.approx(golden["loss"][kind], abs=golden["tolerance"])
    features = features_of(model, TINY, as_public(batch["image"], model))
    for name, values in (("class_token", features[1, 0]), ("last_patch", features[1, -1])):
        expected = torch.tensor(golden[name])
        assert torch.allclose(values[: len(expected)], expected, atol=golden["tolerance"])
    expected = torch.tensor(golden["last_prediction"])
    assert torch.allclose(model.predict(batch)[0][1, -1, : len(expected)], expected, atol=golden["tolerance"])


@torch.no_grad()
def write_golden(checkout: str) -> None:
    batch, losses = make_batch(TINY), {}
    with public_code(checkout) as module:
        for kind, norm_pix_loss in (("norm_pix_loss", True), ("pixels", False)):
            theirs = public_model(module, TINY, norm_pix_loss)
            images = as_public(batch["image"], our_model(TINY, norm_pix_loss))
            loss, predicted, features = run_public(theirs, images, batch["mask"])
            losses[kind] = float(loss)
    features, last = in_order(features, batch["mask"]), int(batch["mask"][1].nonzero()[-1])
    golden = {
        "source": "facebookresearch/mae, models_mae.py, MaskedAutoencoderViT",
        "commit": COMMIT,
        "command": f"{CHECKOUT}=CHECKOUT python -m tests.parity.test_mae_parity",
        "versions": {name: version(name) for name in ("torch", "timm", "numpy")},
        "settings": TINY.public,
        "inputs": "weights, images and masks of the formulas in that file",
        "tolerance": TOLERANCE,
        "loss": losses,
        "class_token": features[1, 0, :KEPT].tolist(),
        "last_patch": features[1, -1, :KEPT].tolist(),
        "last_prediction": predicted[1, last, :KEPT].tolist(),
    }
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(golden, indent=2) + "\n")


if __name__ == "__main__":
    write_golden(os.environ[CHECKOUT])
