"""Natural distribution shifts: top-1 of a classifier on ImageNet-A, -R, -Sketch, -V2, ReaL, or any image folder.

Sources: hendrycks/natural-adv-examples (eval.py) and hendrycks/imagenet-r (eval.py) for the cut to 200 classes;
modestyachts/ImageNetV2 for folders named by number; google-research/reassessed-imagenet for ReaL labels.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from cim_bench.common.ranges import CropPct
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import SetEvaluator
from cim_bench.contracts.parts import Part, split_parts
from cim_bench.data.classes import imagenet_wnids
from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine.inference import ImageBatch
from cim_bench.evals.classes import chance, class_indices, count_warnings, predict
from cim_bench.models.backbone import Backbone
from cim_bench.records.facets import CLEAN, Facets
from cim_bench.records.measurement import Measurement
from cim_bench.records.outcomes import Count
from cim_bench.spec import Data


@dataclass(frozen=True, kw_only=True)
class Shift(SetEvaluator):
    """Top-1 of a classifier on a shifted set, over the set's own classes.

    Attributes:
        data: The set; a folder of class folders has ``val_split="."``.
        labels: ``folder``: class folders are named as the classifier's classes (wnids). ``index``: by number
            of the ImageNet class, as in ImageNetV2. ``real``: ImageNet's validation images with ReaL labels;
            images without a label are left out, and any of an image's labels is right.
        clean: Measure the benchmark's own validation images of the same classes too, through the same cut.
        crop_pct: Of the evaluation transform.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "classifier"

    data: Data = field(default_factory=lambda: Data(name="imagenet-a", root="data/imagenet-a", val_split="."))
    labels: Literal["folder", "index", "real"] = "folder"
    clean: bool = False
    crop_pct: CropPct = 0.875

    def reads(self, data: Data) -> tuple[tuple[Data, str], ...]:
        """The shifted set, and the clean one if it is measured."""
        own = ((self.data, self.data.val_split),)
        return (*own, (data, data.val_split)) if self.clean else own

    def identity(self, data: Data) -> dict[str, str]:
        """The list of ReaL labels that the installed timm ships."""
        return {"real labels": hashlib.sha256(_real_file().read_bytes()).hexdigest()} if self.labels == "real" else {}

    def check(self, model: Backbone, ctx: Context) -> None:
        """Every folder must be a class of the classifier; numbers and ReaL labels need ImageNet's 1,000."""
        if self.labels == "folder":
            folders = ImageSet(self.data, self.data.val_split).classes
            class_indices(folders, model.classes, self.data.name)
        elif model.classes != imagenet_wnids():
            raise ValueError(
                f"{self.data.name} is labelled by number among ImageNet-1k's 1,000 classes, in the order of wnids, "
                f"and the classifier has {len(model.classes)} others; give one of these 1,000"
            )

    def parts(self, ctx: Context) -> list[Part]:
        """The set, and the clean images of the same classes."""
        images = ImageSet(self.data, self.data.val_split)
        if self.labels != "folder":
            return split_parts(_by_number(images) if self.labels == "index" else _real(images))
        parts = split_parts(images)
        if self.clean:
            clean = _of_classes(ctx.scored_images(), images.classes)
            parts += split_parts(clean, prefix=CLEAN, facets={"images": CLEAN, "classes": len(images.classes)})
        return parts

    def transform(self, model: Backbone) -> EvalTransform:
        """Resize and centre crop."""
        return EvalTransform(model.arch.image_size, self.crop_pct)

    @torch.no_grad()
    def answers(
        self, part: Part, models: Mapping[str, Backbone], pixels: Tensor, batch: ImageBatch
    ) -> Iterator[tuple[str, Facets, Tensor]]:
        """One prediction an image; of ReaL, any label of the image counts as its first."""
        images = pixels.float() / 255
        for name, model in models.items():
            if self.labels == "folder":
                yield name, part.facets, predict(model, images, part.images.classes)
                continue
            predictions = model(images).argmax(dim=1)
            if self.labels == "real":
                names = (part.images.image_id(i) for i in batch.indices.tolist())
                right = (real_labels(image) for image in names)
                pairs = zip(predictions.tolist(), right, strict=True)
                predictions = torch.tensor([found[0] if guess in found else guess for guess, found in pairs])
            yield name, part.facets, predictions

    def measure(self, counts: Sequence[Count], ctx: Context) -> Iterator[Measurement]:
        """Top-1 on the set, and on the clean images of its classes."""
        (own,) = [count.n for count in counts if not count.facets]
        ctx.warnings.extend(count_warnings(self.data.name, own))
        classes = ImageSet(self.data, self.data.val_split).classes if self.labels == "folder" else ctx.subject.classes
        place: dict[str, Any] = {"benchmark": self.data.name, "split": "test", "chance": chance(classes)}
        for facets, right, n in counts:
            yield Measurement(metric="top1", value=right / n, n=n, facets=facets, **place)


def _of_classes(images: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """Images of some classes, labelled by their place among these."""
    place = {name: index for index, name in enumerate(classes)}
    known = [place.get(images.classes[label], -1) for label in _labels(images)]
    missing = set(classes) - set(images.classes)
    if missing:
        raise ValueError(
            f"{images.name}/{images.split} has no images of {len(missing)} classes, e.g. {min(missing)}; "
            "measure without --clean"
        )
    chosen = [i for i, label in enumerate(known) if label >= 0]
    relabelled = images.take(chosen).with_labels([known[i] for i in chosen])
    relabelled.classes = classes
    return relabelled


def _by_number(images: ImageSet) -> ImageSet:
    """ImageNetV2's folders 0..999, which sort as strings: the label is the number itself."""
    odd = [name for name in images.classes if not name.isdecimal() or int(name) > 999]
    if odd:
        raise ValueError(f"{images.name}: folder {odd[0]!r} is not a class number from 0 to 999")
    return images.with_labels([int(images.classes[label]) for label in _labels(images)])


def _real(images: ImageSet) -> ImageSet:
    """Validation images that have a ReaL label, labelled by their first."""
    found = [real_labels(images.image_id(i)) for i in range(len(images))]
    chosen = [i for i, labels in enumerate(found) if labels]
    return images.take(chosen).with_labels([found[i][0] for i in chosen])


def _labels(images: ImageSet) -> list[int]:
    labels = images.labels()
    if labels is None:
        raise ValueError(f"{images.name} must be an image folder or tar files, whose labels can be read beforehand")
    return labels


def real_labels(file: str) -> list[int]:
    """ReaL's labels of a validation image, by its file name; from timm's copy of the published list.

    Raises:
        ValueError: If the file is not named as ImageNet's validation images are.
    """
    match = re.search(r"ILSVRC2012_val_(\d{8})", file)
    if not match:
        raise ValueError(f"ReaL labels go by the names ILSVRC2012_val_00000001.JPEG, and {file!r} is not one")
    return _real_list()[int(match[1]) - 1]


@functools.cache
def _real_list() -> list[list[int]]:
    found: list[list[int]] = json.loads(_real_file().read_bytes())
    return found


def _real_file() -> Traversable:
    return resources.files("timm").joinpath("data", "_info", "imagenet_real_labels.json")
