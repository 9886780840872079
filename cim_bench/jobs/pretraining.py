"""Run one `Pretraining`: any pretext, one loop, one export."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cim_bench.benchmark import Pretraining
from cim_bench.common.files import remove, unfinished_writes
from cim_bench.common.seeds import seed_all
from cim_bench.common.streams import say
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
TUNING_IMAGES = 128  # training images on which thresholds and blurs are chosen
CLEAR_MARGIN = 0.05  # of the reference's loss; ours: with 3 % a map was seen that shifts the prior and no more


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
    last: dict[str, float] = {}

    def validate() -> dict[str, float]:
        last.update(held_out(model, recipe, images))
        return last

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
        validate=validate,
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
        held_out=last,
        warning=unlearned(last, model.reference),
        key=key,
    )
    engine = make_accelerator(recipe.machine)
    if engine.is_main_process:
        if meta.warning:
            say(f"pretrain {recipe.pretext.method}: {meta.warning}")
        meta = save_checkpoint(target, model.backbone_state(recipe.export), meta, pretext=model.state_dict())
        clear_resume(folder)
    engine.wait_for_everyone()
    return read_meta(target)


def unlearned(metrics: Mapping[str, float], reference: str) -> str:
    """A sentence if the held-out loss is not below its reference by `CLEAR_MARGIN` of it; else nothing.

    Args:
        metrics: Of the held-out set. Without ``val_reference_loss`` the method knows no reference.
        reference: What that is the loss of, as a noun.
    """
    if "val_reference_loss" not in metrics:
        return ""
    loss, known = metrics["val_loss"], metrics["val_reference_loss"]
    if loss <= (1 - CLEAR_MARGIN) * known:
        return ""
    return f"has not learned its pretext: held-out loss {loss:.3f}, and {known:.3f} for {reference}"


def held_out(model: PretextModel, recipe: Pretraining, train: ImageSet) -> dict[str, float]:
    """The pretext's metrics on up to 512 evenly spread validation images, with the same draws every time.

    Args:
        model: The pretext's model; its mode is restored.
        recipe: The recipe.
        train: The training images, of which 128 choose thresholds and blurs.

    Raises:
        ValueError: If the reference's loss cannot be computed.
    """
    val = ImageSet(recipe.data, recipe.data.val_split)
    sums, tuning = _sums(model, recipe, val, HELD_OUT_IMAGES, -1), _sums(model, recipe, train, TUNING_IMAGES, -2)
    metrics = model.held_out_metrics(sums, tuning)
    if not math.isfinite(known := metrics.get("val_reference_loss", 0.0)):
        raise ValueError(
            f"the reference of {recipe.pretext.method}, {model.reference}, has a loss of {known} on {recipe.data.name} "
            f"{recipe.data.val_split}; change the pretext's settings so that there is something to predict"
        )
    return metrics


@torch.no_grad()
def _sums(model: PretextModel, recipe: Pretraining, images: ImageSet, most: int, epoch: int) -> dict[str, Tensor]:
    """What ``model.held_out`` gives, summed over evenly spread images; in eval mode.

    Args:
        model: The pretext's model; its mode is restored.
        recipe: The recipe.
        images: The set.
        most: Images to take.
        epoch: Negative: draws that training never makes.
    """
    samples = Augmented(images, recipe.pretext.inputs(recipe.arch), recipe.seed)
    count = min(most, len(images))
    chosen = [(epoch, i * len(images) // count) for i in range(count)]
    loader = DataLoader(_At(samples, chosen), batch_size=min(64, recipe.machine.micro_batch), num_workers=0)
    device = next(model.parameters()).device
    was_training, sums = model.training, dict[str, Tensor]()
    model.eval()
    try:
        for batch in loader:
            for name, value in model.held_out({k: v.to(device) for k, v in batch.items()}).items():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.double().cpu()
    finally:
        model.train(was_training)
    return sums


class _At(Dataset[dict[str, object]]):
    """Samples at given (epoch, index) places."""

    def __init__(self, samples: Augmented, places: list[tuple[int, int]]) -> None:
        self.samples, self.places = samples, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: int) -> dict[str, object]:
        return self.samples[self.places[position]]
