"""Outputs of models on an image set: each image is decoded once for all of them, each counted exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cim_bench.data.images import ImageSet
from cim_bench.progress import Meter
from cim_bench.recipe import Machine
from cim_bench.training import _one_thread, make_accelerator


class _Share(Dataset[tuple[int, int, Any]]):
    """This process's images, each exactly once: rank r of W takes r, r+W, r+2W, ..."""

    def __init__(self, images: ImageSet, transform: Callable[[Image.Image], Tensor], rank: int, processes: int) -> None:
        self.images, self.transform = images, transform
        self.indices = range(rank, len(images), processes)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[int, int, Tensor]:
        index = self.indices[position]
        image, label = self.images.read(index)
        return index, label, self.transform(image)


@torch.no_grad()
def run_models(
    functions: Mapping[str, Callable[[Tensor], Tensor]],
    images: ImageSet,
    transform: Callable[[Image.Image], Tensor],
    *,
    machine: Machine,
    batch_size: int | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Apply every function to every image.

    Args:
        functions: From images (B, 3, H, W) in [0, 1] on the device to outputs (B, ...).
        images: The set.
        transform: From a decoded image to (3, H, W) uint8.
        machine: Device and workers.
        batch_size: Images in one pass; the machine's micro-batch by default. It does not change results.

    Returns:
        Outputs (N, ...) on the CPU by function name and labels (N,), both in the set's order, on every process.
    """
    engine = make_accelerator(machine)
    share = _Share(images, transform, engine.process_index, engine.num_processes)
    loader = DataLoader(
        share, batch_size=batch_size or machine.micro_batch, num_workers=machine.workers, worker_init_fn=_one_thread
    )
    indices: list[Tensor] = []
    labels: list[Tensor] = []
    outputs: dict[str, list[Tensor]] = {name: [] for name in functions}
    with Meter(f"{images.name}/{images.split}", len(share), show=engine.is_main_process) as meter:
        for index, label, pixels in loader:
            batch = pixels.to(engine.device).float() / 255
            indices.append(index)
            labels.append(label)
            for name, function in functions.items():
                outputs[name].append(function(batch).float().cpu())
            meter.step(len(index))
    order = _gather(torch.cat(indices))
    assert order.sort().values.equal(torch.arange(len(images))), "an image was lost or counted twice"
    place = order.argsort()
    return {name: _gather(torch.cat(parts))[place] for name, parts in outputs.items()}, _gather(torch.cat(labels))[
        place
    ]


def _gather(values: Tensor) -> Tensor:
    """Concatenate over processes; lengths may differ."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    return torch.cat(gather_object([values]))
