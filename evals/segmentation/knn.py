"""Semantic segmentation by nearest patches (CAPI's k-NN, facebookresearch/capi eval_segmentation.py)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from annotated_types import Interval, MinLen
from torch import Tensor

from cim_bench.common.files import write_atomic
from cim_bench.common.progress import Meter
from cim_bench.common.ranges import Distinct, Pixels, Positive
from cim_bench.contracts.context import Context
from cim_bench.contracts.features import FeatureEvaluator
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.engine.devices import make_accelerator
from cim_bench.engine.features import Extractor
from cim_bench.engine.inference import check_finite
from cim_bench.evals.metrics import confusion_matrix
from cim_bench.evals.segmentation.measure import measurements
from cim_bench.evals.segmentation.neighbours import Distance
from cim_bench.evals.segmentation.patches import TOKENS, Bank, Patches
from cim_bench.evals.segmentation.sets import ADE20K, PreparedMasks, Squash, open_splits
from cim_bench.models.backbone import Backbone
from cim_bench.models.sizing import at_size
from cim_bench.records.confusions import Cells, class_sums, miou, to_cells
from cim_bench.records.measurement import Measurement
from cim_bench.records.predictions import is_shown
from cim_bench.spec import Data, chosen_data

CHOICE = "choice.json"
UNLABELLED = "(unlabelled)"  # no name of a class list that we know
Choice = tuple[int, Distance]


@dataclass(frozen=True, kw_only=True)
class SegmentationKNN(FeatureEvaluator):
    """Segmentation by the nearest patches of the training images, CAPI's protocol; nothing is trained.

    Attributes:
        data: The set, in ADE20K's layout.
        size: Side that images and masks are squashed to; scores are those of masks of this size.
        k: Neighbour counts to choose from.
        distances: What nearest means, to choose from, among standardised tokens.
        tuning: Share of the training images, drawn by the seed, on which k and distance are chosen by mIoU.
        unlabelled: What the unlabelled pixels of labelled patches vote for: a ``class`` of their own, which is wrong
            everywhere (CAPI), or the label of most pixels of their ``patch``.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"
    opens: ClassVar[type[SegmentationSet]] = SegmentationSet

    data: Data = ADE20K
    size: Pixels = 224
    k: Annotated[tuple[Positive, ...], MinLen(1), Distinct()] = (1, 3, 10, 30)
    distances: Annotated[tuple[Distance, ...], MinLen(1), Distinct()] = ("cosine", "L2")
    tuning: Annotated[float, Interval(gt=0, le=0.5)] = 0.1
    unlabelled: Literal["class", "patch"] = "class"

    def reads(self, data: Data) -> tuple[tuple[Data, str], ...]:
        """Both splits of its set."""
        own = chosen_data(self.data, data)
        return ((own, own.train_split), (own, own.val_split))

    def sets(self, ctx: Context) -> Mapping[str, PreparedMasks]:
        """Both splits, their masks squashed."""
        added = (UNLABELLED,) if self.unlabelled == "class" else ()
        return {
            name: PreparedMasks(images, Squash(self.size), added)
            for name, images in zip(("train", "val"), open_splits(chosen_data(self.data, ctx.data)), strict=True)
        }

    def transform(self, model: Backbone) -> Squash:
        """To a square, whatever the image's shape."""
        return Squash(self.size)

    def extractor(self, model: Backbone) -> Extractor:
        """Patch tokens after the final norm, (B, patches, width) in float16."""
        network = at_size(model, self.size)

        def extract(pixels: Tensor) -> Tensor:
            (maps,) = network.token_maps(pixels.float() / 255, norm=True)
            if self.size % maps.shape[-1]:
                raise ValueError(
                    f"{model.arch.name} gives {maps.shape[-1]} patches a side of {self.size} pixels, which do not "
                    "divide them; choose another size"
                )
            return maps.flatten(2).transpose(1, 2).half()

        return extract

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """mIoU and the other measures, at the squashed size, by the k and distance that were chosen."""
        found, sets = self.features(model, ctx), self.sets(ctx)
        train, val = (_checked(Patches.of(found[name]), sets[name]) for name in ("train", "val"))
        tuning, rest = self._split(len(train.tokens), ctx.seed)
        device = make_accelerator(ctx.machine).device
        bank = Bank(
            patches=train,
            places=rest,
            majority=train.majority(),
            scaling=train.scaling(rest),
            fill=self.unlabelled == "patch",
            device=device,
        )
        chosen = self._choose(bank, tuning, sets["train"], ctx)
        cells = _score(replace(bank, places=sorted([*rest, *tuning])), val, chosen, sets["val"], ctx)
        yield from measurements(ctx, sets["val"], [({}, cells)])

    def _split(self, images: int, seed: int) -> tuple[list[int], list[int]]:
        """Places of the images that k and distance are chosen on, and of the others."""
        order = torch.randperm(images, generator=torch.Generator().manual_seed(seed)).tolist()
        tuning = int(images * self.tuning)
        return sorted(order[:tuning]), sorted(order[tuning:])

    def _choose(self, bank: Bank, places: Sequence[int], images: PreparedMasks, ctx: Context) -> Choice:
        """The k and distance of the highest mIoU on some images of the bank's set; of equals, the first."""
        choices = list(itertools.product(self.k, self.distances))
        if len(choices) == 1:
            return choices[0]
        if not places:
            raise ValueError(
                f"{images.name}/{images.split} has {len(images)} images, of which a share of {self.tuning} is none: k "
                "and distance cannot be chosen on them; raise tuning, or give one k and one distance"
            )
        sums = {choice: np.zeros((3, len(images.classes)), np.int64) for choice in choices}
        for place, answers in _answers(bank, bank.patches, places, choices, images, ctx):
            for choice, predicted in answers.items():
                sums[choice] += class_sums([_cells(bank.patches, place, predicted, images)], len(images.classes))[0]
        every = gather_object([sums]) if make_accelerator(ctx.machine).num_processes > 1 else [sums]
        scores = {choice: float(miou(np.sum([own[choice] for own in every], axis=0))) for choice in choices}
        best = max(choices, key=scores.__getitem__)
        if ctx.main:
            told = [{"k": k, "distance": distance, "miou": scores[k, distance]} for k, distance in choices]
            chosen = {"k": best[0], "distance": best[1]}
            write_atomic(ctx.folder / CHOICE, json.dumps({"chosen": chosen, "tuning": told}, indent=1) + "\n")
        return best


def _score(bank: Bank, queries: Patches, choice: Choice, images: PreparedMasks, ctx: Context) -> list[Cells]:
    """A confusion matrix an image, in the set's order, on every process."""
    own: dict[int, Cells] = {}
    for place, answers in _answers(bank, queries, range(len(images)), [choice], images, ctx):
        own[place] = _cells(queries, place, answers[choice], images)
        if is_shown(place, len(images)):
            size = images.images.read(place)[1].shape
            shown = F.interpolate(answers[choice][None, None], size=size, mode="nearest-exact")
            ctx.save_prediction(images, place, shown[0, 0])
    if make_accelerator(ctx.machine).num_processes > 1:
        own = {place: cells for part in gather_object([own]) for place, cells in part.items()}
    assert sorted(own) == list(range(len(images))), "an image was lost or counted twice"
    return [own[place] for place in range(len(images))]


def _checked(patches: Patches, images: PreparedMasks) -> Patches:
    """Patches whose tokens are finite; float16 holds numbers up to 65,504."""
    for chunk in patches.chunks(range(len(patches.tokens)), TOKENS):
        check_finite(torch.from_numpy(patches.tokens[list(chunk)]), images.take(chunk), "patch tokens")
    return patches


def _answers(
    bank: Bank, queries: Patches, places: Sequence[int], choices: Sequence[Choice], images: PreparedMasks, ctx: Context
) -> Iterator[tuple[int, dict[Choice, Tensor]]]:
    """Places of this process's images, and what each choice predicts of them: (S, S) uint8 classes."""
    engine = make_accelerator(ctx.machine)
    own = places[engine.process_index :: engine.num_processes]
    ks, distances = (tuple(dict.fromkeys(values)) for values in zip(*choices, strict=True))
    unlabelled = len(images.classes) - 1  # the last: `PreparedMasks.added`
    with Meter(f"{images.name}/{images.split} neighbours", len(own), show=engine.is_main_process) as meter:
        for place, found in bank.predict(queries, own, ks, distances):
            yield place, {choice: torch.where(labels == 0, unlabelled, labels - 1) for choice, labels in found.items()}
            meter.step()


def _cells(queries: Patches, place: int, predicted: Tensor, images: PreparedMasks) -> Cells:
    truth = torch.from_numpy(np.array(queries.labels[place]))
    return to_cells(confusion_matrix(truth, predicted, len(images.classes)).numpy())
