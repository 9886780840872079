"""One MAE training step (forward and backward): ours, and the public model's in the same run.

    python benchmarks/mae_step.py --public PUBLIC
    python benchmarks/mae_step.py --public PUBLIC --device cuda --precision bf16 --batch 256

Published ViT settings; both see the same images and hide the same patches, made before the clock starts. PUBLIC is a
checkout of facebookresearch/mae, imported at run time. Its weights are copied into ours by name first, and the
difference of the two losses (fp32) is printed. It was written for timm 0.3.2, whose attention writes out the matrix
of weights, and is timed so ("public"); and with the fused attention of the timm installed here.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import CLOCKS, Task, header, interleaved, machine, median, ratio, row
from timm.models import vision_transformer
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision.datasets import ImageFolder

from cim_bench.data.photos.crops import photos
from cim_bench.pretrain.mae import MAE, MAEModel
from cim_bench.spec import Arch

SETTINGS = MAE()


def make_batch(images: Path, arch: Arch, count: int, device: str) -> dict[str, Tensor]:
    samples = ImageFolder(images)
    inputs = SETTINGS.inputs(arch)
    made = [inputs(samples[i * len(samples) // count][0]) for i in range(count)]
    return {name: value.to(device) for name, value in default_collate(made).items()}


def public_batch(batch: dict[str, Tensor], model: MAEModel) -> tuple[Tensor, Tensor]:
    """The same inputs as the public code takes them: normalised; and draws whose order hides the same patches."""
    mean, std = model.pixel[:, :, None, None]
    noise = batch["mask"].float() + torch.linspace(0, 0.5, batch["mask"].shape[1], device=batch["mask"].device)
    return (batch["image"].float() / 255 - mean) / std, noise


def build_public(checkout: Path, arch: str) -> Any:
    """The public model under this timm, whose blocks have no ``qk_scale`` (None there), and without ``np.float``.

    Raises:
        SystemExit: If `checkout` holds no such code.
    """
    if not (checkout / "models_mae.py").is_file():
        raise SystemExit(f"{checkout} is no checkout of facebookresearch/mae: no models_mae.py")
    if "float" not in vars(np):
        np.float = float  # type: ignore[attr-defined]  # noqa: NPY001
    sys.path.insert(0, str(checkout))
    block = vision_transformer.Block
    vision_transformer.Block = lambda *args, qk_scale, **kwargs: block(*args, **kwargs)  # noqa: ARG005
    try:
        create = getattr(importlib.import_module("models_mae"), "mae_" + arch.removesuffix("_224"))
    finally:
        vision_transformer.Block = block
    return create(norm_pix_loss=SETTINGS.norm_pix_loss)


def set_fused(model: nn.Module, fused: bool) -> None:
    for module in model.modules():
        if isinstance(module, vision_transformer.Attention):
            module.fused_attn = fused


def forward_public(model: Any, images: Tensor, noise: Tensor, fused: bool) -> Tensor:
    set_fused(model, fused)
    draw, torch.rand = torch.rand, lambda *_, **__: noise
    try:
        loss: Tensor = model(images, SETTINGS.mask_ratio)[0]
    finally:
        torch.rand = draw
    return loss


@torch.no_grad()
def parity(ours: MAEModel, public: Any, batch: dict[str, Tensor]) -> str:
    """Give both the same weights and say how far their losses are apart."""
    theirs = public.state_dict()
    for name, value in ours.state_dict().items():
        value.copy_(theirs[name.removeprefix("encoder.")])
    mine, other = float(ours(batch)["loss"]), float(forward_public(public, *public_batch(batch, ours), fused=True))
    return f"same weights, images and masks, fp32: losses {mine:.6f} (ours) and {other:.6f} (public)"


def step(model: nn.Module, forward: Any, device: str, precision: str) -> Task:
    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = forward()
        loss.backward()
        model.zero_grad()

    return run


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="ImageFolder tree; default: the demo's photographs")
    parser.add_argument("--public", type=Path, help="checkout of facebookresearch/mae")
    parser.add_argument("--arch", default=Arch().name, help="a ViT that the public code has, at 224 pixels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="also ours through torch.compile")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    torch.manual_seed(0)
    arch, on = Arch(name=chosen.arch), (chosen.device, chosen.precision)
    batch = make_batch(chosen.images or photos() / "train", arch, chosen.batch, chosen.device)
    ours = SETTINGS.build(arch).to(chosen.device).train()
    tasks = {"ours": step(ours, lambda: ours(batch)["loss"], *on)}
    if chosen.compile:
        compiled: Any = torch.compile(ours)
        tasks["ours, compiled"] = step(ours, lambda: compiled(batch)["loss"], *on)
    print(machine(chosen.device))
    if chosen.public:
        public = build_public(chosen.public, chosen.arch).to(chosen.device).train()
        print(parity(ours, public, batch))
        given = public_batch(batch, ours)
        tasks["public"] = step(public, lambda: forward_public(public, *given, fused=False), *on)
        tasks["public, fused attention"] = step(public, lambda: forward_public(public, *given, fused=True), *on)
    seconds = interleaved(tasks, chosen.repeats, clock=chosen.clock, cuda=chosen.device == "cuda")
    print(f"{chosen.arch}, batch {chosen.batch}, {chosen.precision}, {chosen.device}; medians of {chosen.clock} time\n")
    others = [name for name in tasks if name.startswith("public")]
    print(header("Step", "ms", "Images/s", *(f"Times {name} (lowest to highest round)" for name in others)))
    for name, values in seconds.items():
        versus = ("{:.2f} ({:.2f} to {:.2f})".format(*ratio(seconds[other], values)) for other in others)
        print(row(name, 1000 * median(values), chosen.batch / median(values), *versus))


if __name__ == "__main__":
    main()
