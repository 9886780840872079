"""What is commonly wrong where an accuracy is not the published one: folders, class order, preparation of images."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from cim_bench.contracts.parts import stratified_order
from cim_bench.data.classes import imagenet_wnids
from cim_bench.data.images import ImageSet
from cim_bench.engine.inference import ImageBatch, run_pass
from cim_bench.evals.shifts import real_labels
from cim_bench.models.backbone import Backbone
from cim_bench.reports.stats.paired import mcnemar
from cim_bench.selftest.publications import HALF, Preparation
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, Machine

OFFICIAL = re.compile(r"ILSVRC2012_val_\d{8}")
FEWEST, MOST = 24, 500  # images that other preparations are tried on
SHARE = 10  # of the images measured: the trials take no longer than the measurement did
SURE = 0.01  # of McNemar's test, over all trials
REAL_AGREEMENT = 0.8  # of the original labels, 90 % are among ReaL's (Beyer et al., "Are we done with ImageNet?", 2020)
ALIKE = 5  # images a class from which on a common wrong answer is no chance


def wrong_folders(images: ImageSet) -> str:
    """A sentence if ImageNet's validation images lie in other folders than their classes', by their names; else empty.

    ReaL's labels, which go by file names, tell it without a model.
    """
    labels, wnids = images.labels(), imagenet_wnids()
    places = {wnid: place for place, wnid in enumerate(wnids)}
    if labels is None or not set(images.classes) <= places.keys():
        return ""
    pairs = [(real_labels(images.image_id(i)), places[images.classes[label]]) for i, label in enumerate(labels)]
    known = [label in real for real, label in pairs if real]
    if not known or sum(known) >= REAL_AGREEMENT * len(known):
        return ""
    return (
        f"only {sum(known):,} of {len(known):,} images lie in the folder of a class that ReaL gives them: "
        "the validation images were sorted into wrong folders"
    )


def wrong_order(predictions: Tensor, labels: Tensor, names: tuple[str, ...]) -> str:
    """A sentence if the images of a class are mostly answered alike and by another class; else empty.

    Args:
        predictions: (N,) outputs of the classifier.
        labels: (N,) the output of each image's own folder.
        names: Of the outputs.
    """
    classes = sorted(set(labels.tolist()))
    if len(predictions) < ALIKE * len(classes):
        return ""
    own = {label: predictions[labels == label] for label in classes}
    common = {label: int(answers.mode().values) for label, answers in own.items()}
    alike = sum(int((own[label] == answer).sum()) for label, answer in common.items())
    right = int((predictions == labels).sum())
    if alike < 2 * right or 2 * alike < len(predictions):
        return ""
    label, answer = next((label, answer) for label, answer in common.items() if label != answer)
    return (
        f"images of a class are answered alike ({alike:,} of {len(predictions):,}), but by another class, such as "
        f"{names[label]} by {names[answer]}: classes are in another order"
    )


def better_ways(model: Backbone, images: ImageSet, way: Preparation, outputs: Tensor, machine: Machine) -> str:
    """What other preparations and normalisations come to on some of the images, and whether one is clearly better.

    Args:
        model: The classifier, on its device.
        images: What was measured.
        way: How they were prepared.
        outputs: (folders,) the output of each folder.
        machine: Device and workers.
    """
    count = min(MOST, len(images) // SHARE)
    if count < FEWEST:
        return ""
    some = images.take(sorted(stratified_order(images, seed=0)[:count]))
    trials = {"as declared": (way, _normalised(model, model.mean, model.std)), **_trials(model, way)}

    def answers(batch: ImageBatch) -> Iterable[tuple[str, Tensor]]:
        for name, (preparation, forward) in trials.items():
            yield name, forward(batch.images[preparation].float() / 255).argmax(dim=1)

    with torch.no_grad():
        found, labels = run_pass(answers, some, [preparation for preparation, _ in trials.values()], machine=machine)
    hits = {name: (predicted == outputs[labels]).numpy() for name, predicted in found.items()}
    right = {name: int(own.sum()) for name, own in hits.items()}
    best = max(right, key=lambda name: right[name])
    told = ", ".join(f"{name} {n}" for name, n in right.items())
    sure = right[best] > right["as declared"] and mcnemar(hits[best], hits["as declared"]) < SURE / len(trials)
    verdict = f"{best} is clearly better" if sure else "none is clearly better"
    return f"tried on {len(some)} of the images, right answers: {told}; {verdict}"


def _normalised(model: Backbone, mean: Tensor, std: Tensor, flip: bool = False) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        logits: Tensor = model.net(((images.flip(1) if flip else images) - mean) / std)
        return logits

    return forward


Trial = tuple[Preparation, Callable[[Tensor], Tensor]]


def _trials(model: Backbone, way: Preparation) -> dict[str, Trial]:
    """The usual mistakes, one at a time."""
    usual = {
        "mean and std of ImageNet": (IMAGENET_MEAN, IMAGENET_STD),
        "mean and std 0.5": (HALF, HALF),
        "no normalisation": ((0.0,) * 3, (1.0,) * 3),
    }
    found: dict[str, Trial] = {}
    for name, values in usual.items():
        mean, std = (torch.tensor(value, device=model.mean.device).view(3, 1, 1) for value in values)
        if not (mean.allclose(model.mean) and std.allclose(model.std)):
            found[name] = (way, _normalised(model, mean, std))
    found["channels as blue, green, red"] = (way, _normalised(model, model.mean, model.std, flip=True))
    own = _normalised(model, model.mean, model.std)
    other: Preparation = replace(way, interpolation="bilinear" if way.interpolation == "bicubic" else "bicubic")
    found[other.interpolation] = (other, own)
    for crop_pct in (0.875, 1.0):
        resize = math.floor(way.size / crop_pct)
        if abs(resize - way.resize) > 1:
            found[f"short side to {resize}"] = (replace(way, resize=resize), own)
    return found
