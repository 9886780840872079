"""SimMIM beside the public code, microsoft/SimMIM: same weights, images and masks, same numbers.

    CIM_BENCH_PUBLIC_SIMMIM=CHECKOUT pytest tests/parity/test_simmim_parity.py
    CIM_BENCH_PUBLIC_SIMMIM=CHECKOUT python -m tests.parity.test_simmim_parity    # writes tests/golden/simmim.json

The golden numbers are the public code's on a tiny model, and hold ours on machines without a checkout.
"""

from __future__ import annotations

import importlib
import json
import math
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
import timm.layers
import torch
from torch import Tensor, nn

from cim_bench.models.backbone import create_net
from cim_bench.models.key_contract import load_exact
from cim_bench.pretrain.masks import enlarge
from cim_bench.pretrain.simmim import SimMIM, SimMIMModel
from cim_bench.spec import Arch
from tests.golden.weights import drawn

CHECKOUT, COMMIT, TOLERANCE = "CIM_BENCH_PUBLIC_SIMMIM", "d3e29bc", 1e-4
GOLDEN = Path(__file__).parents[1] / "golden" / "simmim.json"
PUBLISHED = {"use_shared_rel_pos_bias": True, "use_rel_pos_bias": False, "init_values": 0.1, "global_pool": "token"}
KEPT = 16  # values of each kind that the golden file holds


@dataclass(frozen=True)
class Size:
    """One model in the words of both sides."""

    arch: Arch
    mask_patch: int
    public: dict[str, int]

    @property
    def grid(self) -> int:
        return self.arch.image_size // self.mask_patch


SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
TINY = Size(
    Arch(name="beit_base_patch16_224", image_size=64, options={**PUBLISHED, **SMALL}), 16, {"img_size": 64, **SMALL}
)
BASE = Size(
    Arch(name="beit_base_patch16_224", options=PUBLISHED),
    32,
    {"img_size": 224, "patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12},
)


@contextmanager
def public_code(checkout: str) -> Iterator[Any]:
    """``models.simmim`` under this timm, whose layers have moved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(checkout)
        patch.setitem(sys.modules, "timm.models.layers", timm.layers)
        yield importlib.import_module("models.simmim")
    for name in [name for name in sys.modules if name.partition(".")[0] == "models"]:
        sys.modules.pop(name)


@pytest.fixture
def public() -> Iterator[Any]:
    checkout = os.environ.get(CHECKOUT, "")
    if not checkout:
        pytest.skip(f"{CHECKOUT} names no checkout of microsoft/SimMIM")
    with public_code(checkout) as module:
        yield module


def public_model(module: Any, size: Size) -> Any:
    """With the settings of configs/vit_base__800ep, but for stochastic depth, which eval mode turns off."""
    encoder = module.VisionTransformerForSimMIM(
        **size.public,
        num_classes=0,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        init_values=0.1,
        use_abs_pos_emb=False,
        use_shared_rel_pos_bias=True,
        use_mean_pooling=False,
    )
    model = module.SimMIM(encoder=encoder, encoder_stride=size.public["patch_size"])
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(drawn(name, value.shape))
    return model.eval()


def our_model(size: Size) -> SimMIMModel:
    """Ours with the same weights; names differ by the network's prefix alone."""
    model = SimMIM(mask_patch=size.mask_patch).build(size.arch)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(drawn(name.replace("encoder.net.", "encoder."), value.shape))
    return model.eval()


def make_batch(size: Size, images: int = 2) -> dict[str, Tensor]:
    draw, side = np.random.RandomState(0), size.arch.image_size
    pixels = torch.from_numpy(draw.randint(0, 256, (images, 3, side, side), np.uint8))
    cells = size.grid**2
    hidden = [torch.from_numpy(draw.permutation(cells)) < math.ceil(0.6 * cells) for _ in range(images)]
    return {"image": pixels, "mask": torch.stack(hidden)}


def as_public(batch: dict[str, Tensor], model: SimMIMModel, size: Size) -> tuple[Tensor, Tensor]:
    images = (batch["image"].float() / 255 - model.pixel[0]) / model.pixel[1]
    mask = batch["mask"].unflatten(1, (size.grid, size.grid)).long()
    return images, enlarge(mask, size.mask_patch // size.public["patch_size"])


def features_of(model: SimMIMModel, size: Size, images: Tensor) -> Tensor:
    """(B, L, D) patch tokens of the exported network."""
    net = create_net(size.arch, num_classes=0)
    load_exact(net, model.backbone_state("online"), what="the export")
    tokens: Tensor = net.eval().forward_features(images)
    return tokens[:, 1:]


@torch.no_grad()
def run_public(model: Any, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Its loss, predicted images, and features (B, L, D) of images with nothing hidden."""
    predicted = model.decoder(model.encoder(images, mask))
    return model(images, mask), predicted, model.encoder(images, torch.zeros_like(mask)).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("size", [TINY, pytest.param(BASE, marks=pytest.mark.slow)], ids=["tiny", "base"])
def test_same_numbers_as_the_public_code(public: Any, size: Size) -> None:
    theirs, ours, batch = public_model(public, size), our_model(size), make_batch(size)
    images, mask = as_public(batch, ours, size)
    loss, predicted, features = run_public(theirs, images, mask)
    with torch.no_grad():
        apart = {
            "features": (features_of(ours, size, images) - features).abs().max(),
            "predictions": (ours.predict(batch)[0] - predicted).abs().max(),
            "loss": (ours(batch)["loss"] - loss).abs(),
        }
    print({name: f"{float(value):.1e}" for name, value in apart.items()}, f"loss {float(loss):.6f}")
    assert max(apart.values()) < TOLERANCE


def test_same_gradients_as_the_public_code(public: Any) -> None:
    theirs, ours, batch = public_model(public, TINY), our_model(TINY), make_batch(TINY)
    theirs(*as_public(batch, ours, TINY)).backward()
    ours(batch)["loss"].backward()
    trained = {name: value.grad for name, value in theirs.named_parameters()}
    mine = {name.replace("encoder.net.", "encoder."): p.grad for name, p in ours.named_parameters()}
    assert mine.keys() == trained.keys()
    for name, gradient in mine.items():
        assert torch.allclose(gradient, trained[name], atol=1e-5), name


def test_golden() -> None:
    golden = json.loads(GOLDEN.read_text())
    batch, model = make_batch(TINY), our_model(TINY)
    assert model(batch)["loss"].item() == pytest.approx(golden["loss"], abs=golden["tolerance"])
    found = {
        "last_patch": features_of(model, TINY, as_public(batch, model, TINY)[0])[1, -1],
        "last_row": model.predict(batch)[0][1, 2, -1],
    }
    for name, values in found.items():
        expected = torch.tensor(golden[name])
        assert torch.allclose(values[: len(expected)], expected, atol=golden["tolerance"])


def write_golden(checkout: str) -> None:
    batch = make_batch(TINY)
    with public_code(checkout) as module:
        loss, predicted, features = run_public(public_model(module, TINY), *as_public(batch, our_model(TINY), TINY))
    golden = {
        "source": "microsoft/SimMIM, models/simmim.py, SimMIM of VisionTransformerForSimMIM",
        "commit": COMMIT,
        "command": f"{CHECKOUT}=CHECKOUT python -m tests.parity.test_simmim_parity",
        "versions": {name: version(name) for name in ("torch", "timm", "numpy")},
        "settings": {**TINY.public, "mask_patch": TINY.mask_patch},
        "inputs": "weights, images and masks of the formulas in that file",
        "tolerance": TOLERANCE,
        "loss": float(loss),
        "last_patch": features[1, -1, :KEPT].tolist(),
        "last_row": predicted[1, 2, -1, :KEPT].tolist(),
    }
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(golden, indent=2) + "\n")


if __name__ == "__main__":
    write_golden(os.environ[CHECKOUT])
