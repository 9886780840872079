"""Whether a training has learned: its last epoch beside answers that do not look at the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt

import torch
from torch import Tensor

from cim_bench.data.images import ImageSet

# A training whose loss has come no more than this part of the way from a constant answer's to a perfect one's means
# nothing. A fresh head that never moves comes 3 to 4 % of it by luck, on four classes of near-identical crops.
LEAST_LEARNED = 0.05
# Standard deviations of a guess's hits that training accuracy must exceed: by luck alone one training in 44 does.
CHANCE_BOUND = 2.0
SMALLEST = 1e-6  # probability that a constant or perfect answer gives a class


def class_frequencies(images: ImageSet) -> Tensor:
    """(classes,) shares of the images; equal ones where a set cannot tell its labels without decoding."""
    count, labels = len(images.classes), images.labels()
    if labels is None:
        return torch.full((count,), 1 / count)
    return torch.bincount(torch.tensor(labels), minlength=count) / len(labels)


@torch.no_grad()
def learned(
    logits: Tensor, labels: Tensor, constant: Tensor, perfect: Tensor, loss_of: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """What a training step logs for `not_learned`: how often it was right, and two losses on the same targets.

    With mixup or smoothing no answer has a loss of 0, and under binary cross entropy a network that answers "none" to
    everything is far below ln 2 at once: so both ends are measured on the very targets that the loss was computed for.

    Args:
        logits: (N, classes).
        labels: (N,) of a mixture the class with the larger share.
        constant: (classes,) the best answer to all images alike: the mean target.
        perfect: (N, classes) the targets themselves.
        loss_of: The training's loss of (N, classes) answers, given as probabilities.

    Returns:
        ``accuracy``, ``constant_loss`` and ``perfect_loss``.
    """
    return {
        "accuracy": (logits.argmax(dim=1) == labels).float().mean(),
        "constant_loss": loss_of(constant.expand_as(perfect)),
        "perfect_loss": loss_of(perfect),
    }


def log(probabilities: Tensor) -> Tensor:
    """Logarithms that are finite for 0, the probability of classes that no target has."""
    return probabilities.clamp_min(SMALLEST).log()


def not_learned(last_epoch: Mapping[str, float], *, images: int, batch: int, classes: int) -> list[str]:
    """A warning for the record of a training that has not learned, or none.

    Either is enough: training accuracy that a guess may have (`CHANCE_BOUND`), or a loss that is hardly below a
    constant answer's (`LEAST_LEARNED`) or above it, as after a divergence. Classes of unequal frequency enter by the
    loss: always naming the most frequent one is a constant answer.

    Args:
        last_epoch: Means over the last epoch: ``loss`` and what `learned` returns.
        images: Of the training split; an epoch shows whole batches of them.
        batch: Images a step.
        classes: How many there are.
    """
    accuracy, loss, chance = last_epoch["accuracy"], last_epoch["loss"], 1 / classes
    shown = images // batch * batch
    constant, perfect = last_epoch["constant_loss"], last_epoch["perfect_loss"]
    guessed = accuracy <= chance + CHANCE_BOUND * sqrt(chance * (1 - chance) / shown)
    flat = loss > constant - LEAST_LEARNED * (constant - perfect)
    if not (guessed or flat):
        return []
    return [
        f"its training has hardly learned: in the last epoch {accuracy:.1%} of {shown:,} training images were right, "
        f"where a guess has {chance:.1%}, and the loss was {loss:.4g}, where a constant answer has {constant:.4g}"
        + (f" and a perfect one {perfect:.4g}" if perfect > 1e-3 else "")
    ]
