"""Run one `Pretraining`: any pretext, one loop, one export."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from cim_bench.benchmark import Pretraining
from cim_bench.common.files import remove, unfinished_writes
from cim_bench.common.seeds import seed_all
from cim_bench.contracts.pretext import PretextModel
from cim_bench.data.images import ImageSet
from cim_bench.engine.devices import is_main, make_accelerator
from cim_bench.engine.fit import clear_resume, fit
from cim_bench.engine.samples import Augmented
from cim_bench.engine.schedule import weight_decay_groups
from cim_bench.jobs.subjects import CHECKPOINT, is_trained
from cim_bench.models.checkpoint import Meta, read_meta, save_checkpoint
from cim_bench.spec import difference, settings

HELD_OUT_IMAGES = 512


def pretrain(recipe: Pretraining, folder: Path, key: str) -> Meta:
    """Train, resuming where an earlier run was cut off, and export ``folder/checkpoint``.

    Args:
        recipe: The recipe.
        folder: The job's own folder.
        key: From `pretraining_key`.

    Returns:
        The checkpoint's identity; that of the existing one if the job was finished before.

    Raises:
        ValueError: If the folder holds the checkpoint of another job.
    """
    target = folder / CHECKPOINT
    if is_trained(folder, key):
        return read_meta(target)
    if is_main():
        for left in unfinished_writes(folder):
            remove(left)
    images = ImageSet(recipe.data, recipe.data.train_split)
    seed_all(recipe.seed, "weights")
    model = recipe.pretext.build(recipe.arch)
    samples = Augmented(images, recipe.pretext.inputs(recipe.arch), recipe.seed)
    fit(
        model,
        samples,
        weight_decay_groups(model, recipe.training.weight_decay),
        training=recipe.training,
        machine=recipe.machine,
        seed=recipe.seed,
        folder=folder,
        key=key,
        title=f"pretrain {recipe.pretext.method}",
        after_step=model.after_step,
        validate=lambda: held_out(model, recipe),
    )
    changed = difference(settings(recipe.pretext), settings(type(recipe.pretext)()))
    meta = Meta(
        kind="backbone",
        method=recipe.pretext.method,
        arch=recipe.arch,
        epochs=recipe.training.epochs,
        seed=recipe.seed,
        mean=model.mean,
        std=model.std,
        recipe=settings(recipe),
        passed={name: value for name, value in changed.items() if name not in recipe.pretext.computing},
        pretrain_data=recipe.data.name,
        key=key,
    )
    engine = make_accelerator(recipe.machine)
    if engine.is_main_process:
        meta = save_checkpoint(target, model.backbone_state(recipe.export), meta, pretext=model.state_dict())
        clear_resume(folder)
    engine.wait_for_everyone()
    return read_meta(target)


@torch.no_grad()
def held_out(model: PretextModel, recipe: Pretraining) -> dict[str, float]:
    """The pretext's metrics on up to 512 evenly spread validation images, with the same draws every time."""
    images = ImageSet(recipe.data, recipe.data.val_split)
    samples = Augmented(images, recipe.pretext.inputs(recipe.arch), recipe.seed)
    count = min(HELD_OUT_IMAGES, len(images))
    chosen = [(-1, i * len(images) // count) for i in range(count)]  # epoch -1: draws that training never makes
    loader = DataLoader(_At(samples, chosen), batch_size=min(64, recipe.machine.micro_batch), num_workers=0)
    device = next(model.parameters()).device
    was_training, sums = model.training, dict[str, float]()
    model.eval()
    try:
        for batch in loader:
            for name, value in model.held_out({k: v.to(device) for k, v in batch.items()}).items():
                sums[name] = sums.get(name, 0.0) + float(value)
    finally:
        model.train(was_training)
    return model.held_out_metrics(sums)


class _At(Dataset[dict[str, object]]):
    """Samples at given (epoch, index) places."""

    def __init__(self, samples: Augmented, places: list[tuple[int, int]]) -> None:
        self.samples, self.places = samples, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: int) -> dict[str, object]:
        return self.samples[self.places[position]]
