"""Time and memory of a training step of UPerNet: ``python benchmarks/upernet_step.py --cuda``.

Random pixels and masks, the network and optimiser of a recipe; seconds are medians of steps after two that do not
count.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from timing import header, machine, median, row
from torch import Tensor

from cim_bench.engine.optimizers import make_optimizer
from cim_bench.evals.segmentation.upernet import SegmentationModel
from cim_bench.models.backbone import Backbone
from cim_bench.registry import load_recipe
from cim_bench.spec import Arch, SlidingTest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="segmentation_mae")
    parser.add_argument("--arch", default="vit_base_patch16_224")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 16], help="images a step")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--channels", type=int, help="of the head; the recipe's by default")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--cuda", action="store_true")
    options = parser.parse_args()
    device = "cuda" if options.cuda else "cpu"
    recipe = load_recipe(options.recipe)
    recipe = replace(
        recipe,
        channels=options.channels or recipe.channels,
        test=SlidingTest(crop=options.crop, scale=(4 * options.crop, options.crop), strides=(options.crop // 2,)),
    )
    print(machine(device), "\n")
    print(header("Images a step", "Precision", "Seconds a step", "Images a second", "Memory, GiB"))
    for precision in options.precisions:
        for batch in options.batches:
            print(row(batch, precision, *measure(recipe, options, batch, precision, device)), flush=True)


def measure(
    recipe: object, options: argparse.Namespace, batch: int, precision: str, device: str
) -> tuple[float, float, float | str]:
    """Seconds a step, images a second, and the most memory of the accelerator in GiB."""
    network = recipe.network(Backbone(Arch(name=options.arch)), 150)  # type: ignore[attr-defined]
    model = SegmentationModel(network, recipe).to(device).train()  # type: ignore[arg-type]
    optimizer = make_optimizer(recipe.groups(network), recipe.training)  # type: ignore[attr-defined]
    size = (batch, options.crop, options.crop)
    masks = torch.randint(0, 150, size, dtype=torch.uint8, device=device)
    images = torch.randint(0, 256, (batch, 3, options.crop, options.crop), dtype=torch.uint8, device=device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = [
        step(model, optimizer, {"image": images, "mask": masks}, precision, device) for _ in range(2 + options.steps)
    ]
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else "–"
    middle = median(seconds[2:])
    return middle, batch / middle, memory


def step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], precision: str, device: str
) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    optimizer.zero_grad()
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        loss = model(batch)["loss"]
    loss.backward()
    optimizer.step()
    float(loss.detach())  # waits for the accelerator
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
