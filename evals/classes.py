"""From the folders of an image set to the outputs of a classifier, by name and never by position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cim_bench.data.sets import expected_images
from cim_bench.models.backbone import Backbone


def class_indices(folders: Sequence[str], classes: Sequence[str], what: str) -> Tensor:
    """The classifier's output for each folder.

    ImageNet-A and -R hold 200 of 1,000 classes: logits are cut to these before the largest is taken
    (hendrycks/natural-adv-examples, eval.py), and a label is the place of its folder among the 200.

    Args:
        folders: Class folders of the set, in label order: wnids, or whatever the classifier's classes are called.
        classes: Of the classifier, in output order.
        what: Name of the set, for the message.

    Returns:
        (folders,) indices of outputs.

    Raises:
        ValueError: If a folder is not one of the classes.
    """
    place = {name: index for index, name in enumerate(classes)}
    unknown = [name for name in folders if name not in place]
    if unknown:
        raise ValueError(
            f"{what} has {len(folders)} classes and {len(unknown)} of them, e.g. {unknown[0]}, "
            f"are not among the classifier's {len(classes)} (e.g. {next(iter(classes), 'none')}); "
            "give a classifier of these classes"
        )
    return torch.tensor([place[name] for name in folders])


def count_warnings(name: str, n: int) -> list[str]:
    """A warning where a set goes by a released one's name and holds, or was measured on, another number of images."""
    expected = expected_images(name)
    known = " or ".join(f"{count:,}" for count in expected)
    return [f"{n:,} images, where {name} has {known}"] if expected and n not in expected else []


def chance(classes: Sequence[str]) -> float | None:
    """What a guess among classes has in the mean; ``None`` if nobody knows them."""
    return 1 / len(classes) if classes else None


def predict(model: Backbone, images: Tensor, folders: Sequence[str]) -> Tensor:
    """Place among `folders` of the largest output (B,), for images (B, 3, H, W) in [0, 1]."""
    logits: Tensor = model(images)
    if tuple(folders) == model.classes:
        return logits.argmax(dim=1)
    return logits[:, class_indices(folders, model.classes, "the set").to(logits.device)].argmax(dim=1)
