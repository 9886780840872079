"""One CIM training step (forward, backward, AdamW, moving average): ours, and the public model's in the same run.

    python benchmarks/cim_step.py --images IMAGES --public PUBLIC
    python benchmarks/cim_step.py --public PUBLIC --device cuda --precision bf16 --batch 256

Published ViT settings; both see the same inputs, made before the clock starts. PUBLIC is a checkout of
weivision/Correlational-Image-Modeling, imported at run time. Its weights are copied into ours by name first,
and the difference of the two losses and maps (fp32) is printed: the speed of the same computation.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import torch
from cim_inputs import decode
from timing import CLOCKS, Task, header, interleaved, machine, median, public_code, ratio, row
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision.datasets import ImageFolder

from cim_bench.data.photos.crops import photos
from cim_bench.pretrain.cim.exemplars import correlation_maps
from cim_bench.pretrain.cim.method import CIM, CIMModel
from cim_bench.spec import Arch

SETTINGS = CIM()
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


def make_batch(images: Path, count: int, device: str) -> dict[str, Tensor]:
    paths = [path for path, _ in ImageFolder(images).samples]
    inputs = SETTINGS.inputs(Arch())
    samples = [inputs(decode(paths[i * len(paths) // count])) for i in range(count)]
    return {name: value.to(device) for name, value in default_collate(samples).items()}


def public_batch(batch: dict[str, Tensor], model: CIMModel) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The same inputs as the public code takes them: normalised, a list entry for each exemplar."""
    context, exemplars = (
        (batch[name].float() / 255 - model.pixel[0]) / model.pixel[1] for name in ("context", "exemplars")
    )
    maps = correlation_maps(batch["boxes"], model.side, SETTINGS.context_size).long()
    return context, list(exemplars.unbind(1)), list(maps.unbind(1))


def build_public(checkout: Path, arch: str) -> Any:
    public_code(checkout)
    create = getattr(importlib.import_module("models.cim"), "cim_" + arch.removesuffix("_224"))
    model = create(
        img_size=Arch().image_size,
        context_size=SETTINGS.context_size,
        template_size=SETTINGS.exemplar_size,
        sigma_cont=SETTINGS.sigma_cont,
        sigma_corr=SETTINGS.sigma_corr,
    )
    model.train_update(epochs=300, iter_per_epoch=1000, cur_epoch=0)
    return model


@torch.no_grad()
def parity(ours: CIMModel, public: Any, batch: dict[str, Tensor]) -> str:
    """Give both the same weights, no two alike, and say how far their losses and logits are apart."""
    for name, value in public.named_parameters():
        if "pos_embed" not in name:
            value.add_(torch.randn_like(value), alpha=0.02)
    theirs = public.state_dict()
    for name, value in ours.state_dict().items():
        prefix = next(start for start in NAMES if name.startswith(start))
        value.copy_(theirs[NAMES[prefix] + name.removeprefix(prefix)])
    loss, pairs = public(*public_batch(batch, ours))
    logits = torch.stack([pair[:, 1] - pair[:, 0] for pair in pairs], dim=1)
    losses = f"losses {float(ours(batch)['loss']):.6f} (ours) and {float(loss):.6f} (public)"
    apart = float((ours.predict(batch)[0] - logits).abs().max())
    return f"same weights and inputs, fp32: {losses}; logits of maps differ by at most {apart:.1e}"


def step(model: nn.Module, forward: Any, after: Any, device: str, precision: str) -> Task:
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05)

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = forward()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after()

    return run


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="ImageFolder tree; default: the demo's photographs")
    parser.add_argument("--public", type=Path, help="checkout of weivision/Correlational-Image-Modeling")
    parser.add_argument("--arch", default=Arch().name)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    torch.manual_seed(0)
    batch = make_batch(chosen.images or photos() / "train", chosen.batch, chosen.device)
    ours = SETTINGS.build(Arch(name=chosen.arch)).to(chosen.device).train()
    on = (chosen.device, chosen.precision)
    tasks = {"ours": step(ours, lambda: ours(batch)["loss"], lambda: ours.after_step(0.0), *on)}
    print(machine(chosen.device))
    if chosen.public:
        public = build_public(chosen.public, chosen.arch).to(chosen.device).train()
        print(parity(ours, public, batch))
        given = public_batch(batch, ours)
        tasks["public"] = step(public, lambda: public(*given)[0], public.iter_update, *on)
    seconds = interleaved(tasks, chosen.repeats, clock=chosen.clock, cuda=chosen.device == "cuda")
    print(f"{chosen.arch}, batch {chosen.batch}, {chosen.precision}, {chosen.device}; medians of {chosen.clock} time\n")
    print(header("Step", "ms", "Images/s", "Times the public speed (lowest to highest round)"))
    for name, values in seconds.items():
        versus = "{:.2f} ({:.2f} to {:.2f})".format(*ratio(seconds["public"], values)) if chosen.public else ""
        print(row(name, 1000 * median(values), chosen.batch / median(values), versus))


if __name__ == "__main__":
    main()
