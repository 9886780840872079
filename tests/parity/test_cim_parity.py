"""CIM's pretext beside the public code, weivision/Correlational-Image-Modeling: same weights and inputs, same numbers.

    CIM_BENCH_PUBLIC_CIM=CHECKOUT pytest tests/parity/test_cim_parity.py
    CIM_BENCH_PUBLIC_CIM=CHECKOUT python -m tests.parity.test_cim_parity    # writes tests/golden/cim.json

The golden numbers are the public code's on a tiny model, and hold ours on machines without a checkout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cim_bench.pretrain.cim.exemplars import correlation_maps
from cim_bench.pretrain.cim.method import CIM, CIMModel
from cim_bench.spec import Arch
from tests.golden.weights import drawn, images
from tests.parity.public_formats import COMMITS, checkout, public, public_code

TOLERANCE = 1e-4
GOLDEN = Path(__file__).parents[1] / "golden" / "cim.json"
KEPT = 16  # values of each kind that the golden file holds
PROGRESS = 0.3  # of training, when the moving average is compared
NAMES = {  # ours: the public code's
    "online.": "",
    "target.patch_embed.": "patch_embed_c.",
    "target.blocks.": "blocks_c.",
    "target.norm.": "norm_c.",
    "target.": "",  # class token and positions are shared
    "decoder_block.q.": "decoder_corr_block.block.attn.q.",
    "decoder_block.kv.": "decoder_corr_block.block.attn.kv.",
    "decoder_block.proj.": "decoder_corr_block.block.attn.proj.",
    "decoder_block.": "decoder_corr_block.block.",
    "decoder_pred.": "decoder_pred_mask.0.",
    "": "",
}


@dataclass(frozen=True)
class Size:
    """One model in the words of both sides."""

    arch: Arch
    pretext: CIM
    public: dict[str, Any]


TINY = Size(
    Arch(
        name="vit_tiny_patch16_224",
        image_size=32,
        options={"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
    ),
    CIM(context_size=24, exemplar_size=16, num_exemplars=2, decoder_dim=32, decoder_heads=4),
    {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 48,
        "depth": 2,
        "num_heads": 3,
        "decoder_embed_dim": 32,
        "decoder_num_heads": 4,
        "context_size": 24,
        "template_size": 16,
    },
)
BASE = Size(
    Arch(),
    CIM(num_exemplars=2),
    {
        "embed_dim": 768,
        "depth": 12,
        "num_heads": 12,
        "decoder_embed_dim": 512,
        "decoder_num_heads": 16,
        "context_size": 160,
        "template_size": 64,
    },
)


@pytest.fixture
def module() -> Iterator[Any]:
    folder = checkout("CIM")
    if folder is None:
        pytest.skip(f"CIM_BENCH_PUBLIC_CIM names no checkout of {COMMITS['CIM']}")
    with public_code(folder):
        yield public("models.cim")


def weight(name: str, like: Tensor) -> Tensor:
    """By the public name; positions stay the fixed table of both sides."""
    return like if "pos_embed" in name else drawn(name, like.shape)


def public_model(module: Any, size: Size) -> Any:
    layer = partial(nn.LayerNorm, eps=1e-6)
    model = module.CorrelationalAutoencoderViT(**size.public, mlp_ratio=4, norm_layer=layer, sigma_cont=0.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weight(name, parameter))
    model.train_update(epochs=1, iter_per_epoch=10, cur_epoch=0)
    return model.eval()


def public_name(name: str) -> str:
    prefix = next(start for start in NAMES if name.startswith(start))
    return NAMES[prefix] + name.removeprefix(prefix)


def our_model(size: Size) -> CIMModel:
    model = size.pretext.build(size.arch)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weight(public_name(name), parameter))
    return model.eval()


def make_batch(size: Size) -> dict[str, Tensor]:
    """Two images; of each an upright exemplar and a rotated one, whose boxes make the maps."""
    side, pretext = size.arch.image_size, size.pretext
    quarter = side / 4
    upright = [-quarter, -quarter, quarter, 2 * quarter, 0.0]  # left, top, right, bottom from the centre; degrees
    rotated = [-quarter, -quarter / 2, quarter, quarter / 2, 30.0]
    exemplars = images(pretext.exemplar_size, count=4).unflatten(0, (2, 2))
    boxes = torch.tensor([[upright, rotated], [rotated, upright]])
    pixels = {"context": images(pretext.context_size), "exemplars": exemplars}
    return {"boxes": boxes, **{name: (x * 255).round().to(torch.uint8) for name, x in pixels.items()}}


def as_public(batch: dict[str, Tensor], model: CIMModel) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Normalised context, and a list entry for each exemplar and its map."""
    context, exemplars = (
        (batch[name].float() / 255 - model.pixel[0]) / model.pixel[1] for name in ("context", "exemplars")
    )
    maps = correlation_maps(batch["boxes"], model.side, model.settings.context_size).long()
    return context, list(exemplars.unbind(1)), list(maps.unbind(1))


def numbers_of_public(model: Any, given: tuple[Tensor, list[Tensor], list[Tensor]]) -> dict[str, Tensor]:
    seen, shown = model.forward_encoder(given[0], given[1])
    loss, pairs = model(*given)
    logits = torch.stack([pair[:, 1] - pair[:, 0] for pair in pairs], dim=1)
    return {"loss": loss, "context": seen, "exemplars": torch.stack(shown, dim=1), "logits": logits}


def numbers_of_ours(model: CIMModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    logits, seen, shown = model.predict(batch)
    return {"loss": model(batch)["loss"], "context": seen, "exemplars": shown, "logits": logits}


@pytest.mark.parametrize("size", [TINY, pytest.param(BASE, marks=pytest.mark.slow)], ids=["tiny", "base"])
@torch.no_grad()
def test_same_numbers_as_the_public_code(module: Any, size: Size) -> None:
    ours, batch = our_model(size), make_batch(size)
    theirs = numbers_of_public(public_model(module, size), as_public(batch, ours))
    mine = numbers_of_ours(ours, batch)
    apart = {name: float((mine[name] - theirs[name]).abs().max()) for name in mine}
    print({name: f"{value:.1e}" for name, value in apart.items()}, f"loss {float(theirs['loss']):.6f}")
    assert float(theirs["logits"].std()) > 0.01
    assert max(apart.values()) < TOLERANCE


def test_same_gradients_and_moving_average_as_the_public_code(module: Any) -> None:
    theirs, ours, batch = public_model(module, TINY), our_model(TINY), make_batch(TINY)
    theirs(*as_public(batch, ours))[0].backward()
    ours(batch)["loss"].backward()
    trained = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    mine = {public_name(name): p.grad for name, p in ours.named_parameters() if p.grad is not None}
    difference = trained.pop("decoder_pred_mask.0.weight"), mine.pop("decoder_pred_mask.0.weight")
    assert torch.allclose(*difference, atol=1e-5)
    assert mine.keys() == trained.keys()
    for name, gradient in mine.items():
        assert torch.allclose(gradient, trained[name], atol=1e-5), name
    theirs.iteration = int(10 * PROGRESS)
    theirs.iter_update()
    ours.after_step(PROGRESS)
    average = theirs.state_dict()
    for name, parameter in ours.target.named_parameters():
        if "pos_embed" not in name and name != "cls_token":
            assert torch.allclose(parameter, average[public_name(f"target.{name}")], atol=1e-6), name


def kept(numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Some of the numbers: the second image's class token, its second exemplar's last cell, and a line of its map."""
    return {
        "loss": numbers["loss"],
        "context_class_token": numbers["context"][1, 0, :KEPT],
        "exemplar_last_patch": numbers["exemplars"][1, 1, -1, :KEPT],
        "logits": numbers["logits"][1, 1, 12, :KEPT],
    }


@torch.no_grad()
def test_golden() -> None:
    golden = json.loads(GOLDEN.read_text())
    for name, found in kept(numbers_of_ours(our_model(TINY), make_batch(TINY))).items():
        assert torch.allclose(found, torch.tensor(golden[name]), atol=golden["tolerance"]), name


@torch.no_grad()
def write_golden(folder: Path) -> None:
    with public_code(folder):
        model, given = public_model(public("models.cim"), TINY), as_public(make_batch(TINY), our_model(TINY))
        found = kept(numbers_of_public(model, given))
    golden = {
        "source": "models/cim.py, CorrelationalAutoencoderViT",
        "commit": COMMITS["CIM"],
        "command": "CIM_BENCH_PUBLIC_CIM=CHECKOUT python -m tests.parity.test_cim_parity",
        "versions": {name: version(name) for name in ("torch", "timm", "numpy")},
        "settings": TINY.public,
        "inputs": "weights and images of tests/golden/weights.py, boxes of tests/parity/test_cim_parity.py",
        "tolerance": TOLERANCE,
        **{name: numbers.tolist() for name, numbers in found.items()},
    }
    GOLDEN.write_text(json.dumps(golden, indent=2) + "\n")


if __name__ == "__main__":
    place = checkout("CIM")
    assert place is not None, "set CIM_BENCH_PUBLIC_CIM"
    write_golden(place)
