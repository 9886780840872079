"""Features of Hugging Face exports through `open_checkpoint`, against transformers (``pip install transformers``).

Real sizes, those of each config's defaults, are ``-m slow``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cim_bench.models.backbone import load_backbone
from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, FromCheckpoint
from tests.golden.weights import images

transformers = pytest.importorskip("transformers")
HALF = (0.5, 0.5, 0.5)
TINY = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 192,
    "image_size": 32,
    "patch_size": 8,
}
SIZES = "@32,depth=2,embed_dim=48,num_heads=3,patch_size=8"
DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
}
SHARED = {"use_shared_relative_position_bias": True, "use_mask_token": True}
OWN = {"use_relative_position_bias": True}
Outputs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Export:
    """A class of transformers.

    Attributes:
        kind: Names of the config and of the model.
        outputs: What it gives for normalised images.
        arch: What to ask for where a tiny model's shapes do not tell.
        method: What to ask for where the file does not tell.
        options: Of the config.
        mean: Of the ``preprocessor_config.json`` beside it; none is written where it is ``None``.
        std: Likewise.
        form: What the file is recognised as.
    """

    kind: tuple[str, str]
    outputs: Callable[[Any, Tensor], Outputs]
    arch: str
    form: str
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] | None = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def tokens(hidden: Tensor, prefix: int = 1) -> Outputs:
    return {"cls": hidden[:, 0], "mean_patch": hidden[:, prefix:].mean(dim=1)}


def patches(model: Any, pixels: Tensor) -> Outputs:
    """Without a class token."""
    return {"mean_patch": model(pixels).last_hidden_state.mean(dim=1)}


def last(prefix: int = 1) -> Callable[[Any, Tensor], Outputs]:
    return lambda model, pixels: tokens(model(pixels).last_hidden_state, prefix)


def unmasked(model: Any, pixels: Tensor) -> Outputs:
    """ViTMAE's encoder with every patch, in order."""
    encoder = getattr(model, "vit", model)
    encoder.config.mask_ratio = 0.0
    side = encoder.config.image_size // encoder.config.patch_size
    order = torch.arange(side**2, dtype=torch.float32).expand(len(pixels), -1)
    return tokens(encoder(pixels, noise=order).last_hidden_state)


def masked_beit(model: Any, pixels: Tensor) -> Outputs:
    return tokens(model.layernorm(model.beit(pixels).last_hidden_state))


def logits(model: Any, pixels: Tensor) -> Outputs:
    return {"logits": model(pixels).logits}


VIT, BEIT = f"vit_tiny_patch16_224{SIZES}", f"beit_base_patch16_224{SIZES}"
EXPORTS = {
    "ViTMAEForPreTraining": Export(
        kind=("ViTMAEConfig", "ViTMAEForPreTraining"), outputs=unmasked, arch=VIT, form="Hugging Face ViTMAE",
        mean=None,
    ),
    "ViTMAEModel": Export(
        kind=("ViTMAEConfig", "ViTMAEModel"), outputs=unmasked, arch=VIT, form="Hugging Face ViTMAE encoder"
    ),
    "ViTModel": Export(
        kind=("ViTConfig", "ViTModel"), outputs=last(), arch=VIT, form="Hugging Face ViT", method="supervised"
    ),
    "ViTForImageClassification": Export(
        kind=("ViTConfig", "ViTForImageClassification"), outputs=logits, arch=VIT, form="Hugging Face ViT classifier",
        options={"num_labels": 1000}, mean=HALF, std=HALF, method="supervised",
    ),
    "BeitForMaskedImageModeling": Export(
        kind=("BeitConfig", "BeitForMaskedImageModeling"), outputs=masked_beit, arch=BEIT, form="Hugging Face BEiT",
        options=SHARED, mean=HALF, std=HALF,
    ),
    "BeitModel": Export(
        kind=("BeitConfig", "BeitModel"), outputs=last(), arch=BEIT, form="Hugging Face BEiT",
        options=SHARED | {"use_mean_pooling": False}, mean=HALF, std=HALF,
    ),
    "BeitForImageClassification": Export(
        kind=("BeitConfig", "BeitForImageClassification"), outputs=logits, arch=BEIT,
        form="Hugging Face BEiT classifier", options=OWN | {"num_labels": 1000}, mean=HALF, std=HALF,
    ),
    "Data2VecVisionModel": Export(
        kind=("Data2VecVisionConfig", "Data2VecVisionModel"), outputs=last(), arch=BEIT, form="Hugging Face data2vec",
        options=SHARED | {"use_mean_pooling": False}, mean=HALF, std=HALF,
    ),
    "Data2VecVisionForImageClassification": Export(
        kind=("Data2VecVisionConfig", "Data2VecVisionForImageClassification"), outputs=logits, arch=BEIT,
        form="Hugging Face data2vec classifier", options=OWN | {"num_labels": 1000}, mean=HALF, std=HALF,
    ),
    "IJepaModel": Export(
        kind=("IJepaConfig", "IJepaModel"), outputs=patches, arch=VIT, form="Hugging Face I-JEPA",
    ),
    "Dinov2Model": Export(
        kind=("Dinov2Config", "Dinov2Model"), outputs=last(), arch=f"vit_small_patch14_dinov2{SIZES}",
        form="Hugging Face Dinov2",
    ),
    "Dinov2WithRegistersModel": Export(
        kind=("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel"), outputs=last(prefix=5), mean=None,
        arch=f"vit_small_patch14_reg4_dinov2{SIZES}", form="Hugging Face Dinov2 with registers",
    ),
}  # fmt: skip


def build(case: Export, *, tiny: bool, eps: float, norms: float) -> nn.Module:
    """The model, away from its initialisation but for ViTMAE's fixed positions; its vectors moved by about `norms`."""
    sizes: dict[str, Any] = dict(TINY) if tiny else {}
    config, model = (getattr(transformers, name) for name in case.kind)
    if tiny and config is transformers.ViTMAEConfig:
        sizes |= DECODER
    if "Dinov2" in case.kind[0]:
        sizes.pop("intermediate_size", None)  # it has a ratio in its place
        sizes |= {} if tiny else {"patch_size": 14}
    sizes["layer_norm_eps"] = eps
    torch.manual_seed(0)
    net: nn.Module = model(config(**sizes, **case.options))
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.is_floating_point() and not ("vit_mae" in net.config.model_type and "pos" in name):
                value.add_((norms if value.ndim == 1 else 0.01) * torch.randn(value.shape).abs())
    return net.eval()


@pytest.mark.parametrize(
    "tiny", [pytest.param(True, id="tiny"), pytest.param(False, id="real", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("eps", [1e-12, 1e-6])  # what the configs say, and what the code of most weights has
@pytest.mark.parametrize("name", EXPORTS)
@torch.no_grad()
def test_features_are_those_of_transformers(name: str, eps: float, tiny: bool, tmp_path: Path) -> None:
    case = EXPORTS[name]
    net: Any = build(case, tiny=tiny, eps=eps, norms=0.1)
    net.save_pretrained(tmp_path)
    if case.mean is not None:
        processor = transformers.ViTImageProcessor(image_mean=list(case.mean), image_std=list(case.std))
        processor.save_pretrained(tmp_path)
    arch, size = case.arch if tiny else "", net.config.image_size
    checkpoint, report = open_checkpoint(FromCheckpoint(path=str(tmp_path), method=case.method, arch=arch))
    assert report.format == case.form
    assert (checkpoint.meta.mean, checkpoint.meta.std) == (case.mean or IMAGENET_MEAN, case.std)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (checkpoint.meta.mean, checkpoint.meta.std))
    model = load_backbone(checkpoint, what=name)
    for kind, output in case.outputs(net, (images(size) - mean) / std).items():
        ours = model(images(size)) if kind == "logits" else model.feature(images(size), kind)
        difference = float((ours - output).abs().max())
        print(f"{name}, {checkpoint.meta.arch}, {kind}: largest difference {difference:.1e}")
        assert float(output.abs().mean()) > 0.01
        assert difference < 1e-4


@torch.no_grad()
def test_the_eps_of_config_json_moves_features_and_is_honoured(tmp_path: Path) -> None:
    """On weights near their initialisation, whose class token has a variance of 4e-4."""
    case = EXPORTS["ViTModel"]
    net: Any = build(case, tiny=True, eps=1e-12, norms=1e-3)
    net.save_pretrained(tmp_path)
    source = FromCheckpoint(path=str(tmp_path), method="supervised", arch=VIT, normalisation="imagenet")
    model = load_backbone(open_checkpoint(source)[0], what="it")
    pixels = images(32)
    features = model.feature(pixels, "cls")
    wanted = net(model.normalize(pixels)).last_hidden_state[:, 0]
    (tmp_path / "config.json").unlink()
    other = load_backbone(open_checkpoint(source)[0], what="it").feature(pixels, "cls")
    print(
        f"with the eps {float((features - wanted).abs().max()):.1e}, without {float((other - wanted).abs().max()):.1e}"
    )
    assert float((features - wanted).abs().max()) < 1e-5
    assert float((other - wanted).abs().max()) > 1e-4
