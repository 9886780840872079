"""RobustBench's leaderboard protocols on our classifiers: standard AutoAttack, and accuracy under corruptions.

AutoAttack (Croce and Hein, ICML 2020) runs through ``robustbench.eval.benchmark`` of robustbench 1.1.1, which is
handed two things that it cannot make itself: our images, for it only knows three data sets by their public layout,
and pyautoattack behind the signature that it still calls (see `load_robustbench`). Corruptions run through
``robustbench.eval.clean_accuracy`` and not through ``benchmark``, which reads AlexNet's rows from a file of
RobustBench's checkout, which no wheel holds, and fails without it after all 75 sets were measured.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from cim_bench.common.numbers import ROUNDING
from cim_bench.common.ranges import CropPct, Distinct, Positive
from cim_bench.common.seeds import sample_seed
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.contracts.parts import stratified_order
from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import EvalTransform, StoredPixels
from cim_bench.engine.inference import Transform, fp32_eval, run_pass
from cim_bench.evals.classes import chance
from cim_bench.evals.corruptions.generate import (
    CORRUPTIONS,
    SEVERITIES,
    corrupt_as_released,
    frost_source,
    identity,
)
from cim_bench.evals.corruptions.protocol import Corruptions
from cim_bench.evals.metrics import accuracy
from cim_bench.evals.robustbench.library import (
    TARGETS,
    StandardAttack,
    attack_messages,
    device_of,
    load_robustbench,
    predict_by_library,
    served,
)
from cim_bench.models.backbone import Backbone
from cim_bench.records.facets import CLEAN, Facets
from cim_bench.records.measurement import Measurement
from cim_bench.spec import Data

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
Attack = Literal["apgd-ce", "apgd-t", "fab-t", "square", "apgd-dlr", "fab"]


@dataclass(frozen=True, kw_only=True)
class RobustBench(Evaluator):
    """RobustBench: standard AutoAttack at L-infinity 4/255, and mean accuracy over fifteen corruptions.

    Attributes:
        eps: Largest change of a pixel (L-infinity), on the scale of [0, 1].
        attacks_to_run: Some of AutoAttack's attacks, with the standard version's settings, for quick runs; empty for
            the standard version itself.
        corruptions: Where the 75 corrupted sets come from: the ``released`` files, ``generated`` from the images
            that are attacked, or ``off``.
        n_examples: Most images to attack and to score under each corruption; RobustBench takes 5,000 of ImageNet.
        data: The set whose validation split is attacked; the benchmark's own by default.
        corrupted: The released set, as of the evaluator ``corruptions``.
        crop_pct: Of the evaluation transform; 0.875 is RobustBench's ``BicubicRes256Crop224``.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "classifier"

    eps: Annotated[float, Interval(gt=0, le=1)] = 4 / 255
    attacks_to_run: Annotated[tuple[Attack, ...], Distinct()] = ()
    corruptions: Literal["released", "generated", "off"] = "released"
    n_examples: Positive = 5000
    data: Data | None = None
    corrupted: Data = field(default_factory=lambda: Data(name="imagenet-c", root="data/imagenet-c"))
    crop_pct: CropPct = 0.875

    def reads(self, data: Data) -> tuple[tuple[Data, str], ...]:
        """The validation images, and the released folders of corrupted ones."""
        clean = self.data or data
        released = self._released().reads(clean) if self.corruptions == "released" else ()
        return ((clean, clean.val_split), *released)

    def identity(self, data: Data) -> dict[str, str]:
        """The code and the frost photographs that corrupt images on the fly."""
        return identity() if self.corruptions == "generated" else {}

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """Top-1 on clean and attacked images, then the mean over all corruptions and severities.

        Raises:
            ValueError: If robustbench is missing, or the settings, the classifier and the images do not fit together.
        """
        library = load_robustbench()
        self._check(model)
        if self.corruptions == "released":  # here and not after hours of attacks
            next(self._folders(model, ctx))
        clean = self.data or ctx.data
        images = self._take(clean, clean.val_split, model, ctx)
        pixels, labels = _read(images, EvalTransform(model.arch.image_size, self.crop_pct), ctx)
        outcomes = self._attacked(library, model, pixels.float() / 255, labels, ctx)
        ctx.save_outcomes(images, labels, outcomes)
        for facets, predictions in outcomes:
            value, n = accuracy(predictions, labels)
            place: dict[str, Any] = {"benchmark": images.name, "split": images.split, "chance": chance(model.classes)}
            yield Measurement(metric="top1", value=value, n=n, facets=facets, **place)
        if self.corruptions == "released":
            yield self._mean(library, model, self._stored(model, ctx), self.corrupted.name, ctx)
        if self.corruptions == "generated":
            made = self._generated(images, pixels, labels, ctx)
            yield self._mean(library, model, made, f"{images.name}-c-generated", ctx)

    def _released(self) -> Corruptions:
        return Corruptions(source="released", data=self.corrupted)

    def _take(self, data: Data, split: str, model: Backbone, ctx: Context) -> ImageSet:
        """The images of a set that are measured; their classes must be the classifier's."""
        images = ImageSet(data, split)
        if images.classes != model.classes:
            raise ValueError(
                f"{images.name} has {len(images.classes)} classes and the classifier {len(model.classes)}, not the "
                "same ones in the same order; give a classifier of these images"
            )
        return images.take(leaderboard_places(images, self.n_examples, ctx.seed))

    def _check(self, model: Backbone) -> None:
        dlr = {"apgd-t", "apgd-dlr"} & set(self.attacks_to_run or STANDARD)
        if dlr and model.num_classes < 4:
            raise ValueError(
                f"{', '.join(sorted(dlr))} compares four logits and the classifier has {model.num_classes}; "
                "set attacks_to_run to others, e.g. apgd-ce and square"
            )

    def _attacked(
        self, library: Any, model: Backbone, images: Tensor, labels: Tensor, ctx: Context
    ) -> list[tuple[Facets, Tensor]]:
        """Predictions (N,) on images (N, 3, H, W) in [0, 1] and on what AutoAttack made of them."""
        attack = StandardAttack(attacks=self.attacks_to_run or STANDARD, seed=ctx.seed, classes=model.num_classes)
        quiet = contextlib.redirect_stdout(sys.stderr)  # benchmark prints its results
        with fp32_eval(model), served(library, images, labels, attack), attack_messages(ctx), quiet:
            claimed = library.benchmark(
                model,
                n_examples=len(images),
                dataset="imagenet",
                threat_model="Linf",
                preprocessing="BicubicRes256Crop224",  # must be named, though the images come without it
                device=device_of(model),
                batch_size=ctx.machine.micro_batch,
                eps=self.eps,
            )
        sets = {CLEAN: images, "autoattack": attack.adversarial}
        outcomes: list[tuple[Facets, Tensor]] = []
        with fp32_eval(model):
            for name, shown in sets.items():
                outcomes.append(({"attack": name}, predict_by_library(library, model, shown, labels, ctx)))
        right = [int((predictions == labels).sum()) for _, predictions in outcomes]
        ctx.warnings.extend(doubts(images, attack.adversarial, self.eps, right, claimed))
        if set(self.attacks_to_run or STANDARD) != set(STANDARD):
            ctx.warnings.append(f"not standard AutoAttack but {', '.join(self.attacks_to_run)} alone")
        if model.num_classes <= TARGETS:
            ctx.warnings.append(f"targeted attacks have {model.num_classes - 1} targets in place of {TARGETS}")
        return outcomes

    def _mean(self, library: Any, model: Backbone, sets: Iterator[_Set], name: str, ctx: Context) -> Measurement:
        """RobustBench's mean of 75 accuracies: over equally many images each, so one fraction of all answers."""
        outcomes: list[tuple[Facets, Tensor]] = []
        with fp32_eval(model):
            for made in sets:
                predictions = predict_by_library(library, model, made.pixels.float() / 255, made.labels, ctx)
                outcomes.append(({"corruption": made.corruption, "severity": made.severity}, predictions))
        ctx.save_outcomes(made.images, made.labels, outcomes, part="corruptions")
        value, n = accuracy(torch.cat([found for _, found in outcomes]), made.labels.repeat(len(outcomes)))
        facets = {"mean": "corruptions"}
        place: dict[str, Any] = {"benchmark": name, "split": "test", "chance": chance(model.classes)}
        return Measurement(metric="top1", value=value, n=n, facets=facets, **place)

    def _generated(self, images: ImageSet, pixels: Tensor, labels: Tensor, ctx: Context) -> Iterator[_Set]:
        """Corrupted copies of pixels (N, 3, H, W) uint8 after resize and crop; seeded for each image by its id."""
        ctx.warnings.append("corruptions generated on the fly, not the released files")
        if frost_source() != "published":
            ctx.warnings.append("frost with a procedural texture instead of the published photographs")
        seeds = torch.tensor([sample_seed(ctx.seed, images.image_id(i)) for i in range(len(images))])
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                yield _Set(name, severity, images, corrupt_as_released(pixels, name, severity, seeds), labels)

    def _stored(self, model: Backbone, ctx: Context) -> Iterator[_Set]:
        """The released files; every folder must hold the same images."""
        first: list[str] = []
        for (name, severity), images in self._folders(model, ctx):
            ids = [images.image_id(i) for i in range(len(images))]
            first = first or ids
            if ids != first:
                where = f"{self.corrupted.root}: {name}-{severity}"
                raise ValueError(f"{where} does not hold the same images as the first folder")
            yield _Set(name, severity, images, *_read(images, StoredPixels(model.arch.image_size), ctx))

    def _folders(self, model: Backbone, ctx: Context) -> Iterator[tuple[tuple[str, int], ImageSet]]:
        """Released images by corruption and severity; never resized, so their size must be the classifier's."""
        for place, folder in self._released().folders().items():
            images = self._take(folder, folder.val_split, model, ctx)
            StoredPixels(model.arch.image_size)(images.read(0)[0])
            yield place, images


def leaderboard_places(images: ImageSet, n: int, seed: int) -> list[int]:
    """Which images are measured.

    Of ImageNet, the first n of the 5,000 whose names RobustBench ships, in its order; of other sets, n in which all
    classes are equally frequent, to one image.

    Args:
        images: The whole set.
        n: At least 1.
        seed: Of the choice from other sets.

    Raises:
        ValueError: If n is not positive.
    """
    if n < 1:
        raise ValueError(f"n_examples is {n}; nothing would be measured, so give 1 or more")
    places = {images.image_id(i): i for i in range(len(images))}
    listed = resources.files("robustbench") / "helper_files" / "imagenet_test_image_ids.txt"
    wanted = listed.read_text().split()
    if all(name in places for name in wanted):
        return [places[name] for name in wanted[:n]]
    return sorted(stratified_order(images, seed)[:n])


def doubts(
    images: Tensor, attacked: Tensor, eps: float, right: Sequence[int], claimed: Sequence[float]
) -> Iterator[str]:
    """One sentence for each thing that cannot be true of an attack that kept its bound.

    Args:
        images: (N, 3, H, W) in [0, 1].
        attacked: Likewise.
        eps: Largest change allowed.
        right: How many were classified right, clean and attacked.
        claimed: The two accuracies that RobustBench returned, which counted in fp32.
    """
    largest = float((attacked - images).abs().max())
    if not largest <= eps + ROUNDING:  # NaN, too
        yield f"AutoAttack changes a pixel by {largest * 255:.4g}/255, more than eps {eps * 255:.4g}/255"
    if not (float(attacked.min()) >= 0 and float(attacked.max()) <= 1):
        yield "AutoAttack leaves the range [0, 1] of pixels"
    if right[1] > right[0]:
        yield f"{right[1]} images are right under attack and only {right[0]} without"
    for name, count, fraction in zip(("clean", "attacked"), right, claimed, strict=True):
        if abs(count / len(images) - fraction) > ROUNDING:
            yield f"RobustBench counts {fraction:.2%} of {name} images right, and the kept predictions {count}"


@dataclass(frozen=True)
class _Set:
    """One corruption at one severity: images, their pixels (N, 3, H, W) uint8 and labels (N,)."""

    corruption: str
    severity: int
    images: ImageSet
    pixels: Tensor
    labels: Tensor


def _read(images: ImageSet, transform: Transform, ctx: Context) -> tuple[Tensor, Tensor]:
    """Pixels (N, 3, H, W) uint8 and labels (N,) of a set, on the CPU: AutoAttack takes all at once."""
    read, labels = run_pass(
        lambda batch: [("pixels", batch.images[transform])], images, [transform], machine=ctx.machine
    )
    return read["pixels"], labels
