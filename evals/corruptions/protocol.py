"""ImageNet-C: top-1 for fifteen corruptions at five severities, from the released files or generated on the fly.

Source: Hendrycks and Dietterich, ICLR 2019 (hendrycks/robustness). The raw rows are recorded; mCE, relative mCE
and the mean are derived from them in `cim_bench.reports`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from cim_bench.common.ranges import CropPct, NotNegative, Pixels
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import SetEvaluator
from cim_bench.contracts.parts import Part, split_parts
from cim_bench.data.images import ImageSet
from cim_bench.data.sets import CORRUPTIONS as RELEASED
from cim_bench.data.transforms import EvalTransform, StoredPixels
from cim_bench.engine.inference import ImageBatch, Transform
from cim_bench.evals.classes import chance, class_indices, count_warnings, predict
from cim_bench.evals.corruptions.generate import (
    CORRUPTIONS,
    SEVERITIES,
    corrupt_as_released,
    frost_source,
    identity,
)
from cim_bench.evals.corruptions.write import MANIFEST
from cim_bench.models.backbone import Backbone
from cim_bench.records.facets import CLEAN, Facets
from cim_bench.records.measurement import Measurement
from cim_bench.records.outcomes import Count
from cim_bench.spec import Data

GROUPS = ("", *RELEASED)  # the released archives hold one group of corruptions each: noise, blur, ...


@dataclass(frozen=True, kw_only=True)
class Corruptions(SetEvaluator):
    """Top-1 of a classifier on corrupted images: raw rows of fifteen corruptions times five severities.

    Attributes:
        source: ``released`` reads the published files and never resizes them; ``generated`` corrupts the
            benchmark's validation images on the fly, after resize and centre crop. The record says which.
        data: The released set: ``ROOT/[GROUP/]CORRUPTION/SEVERITY/CLASS/*.JPEG``.
        size: Pixels a side of the released files; files of another size are refused.
        subset: Images of a stratified subset that is measured first, under every corruption; 0 for none.
        crop_pct: Of the transform before generated corruptions.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "classifier"

    source: Literal["released", "generated"] = "released"
    data: Data = field(default_factory=lambda: Data(name="imagenet-c", root="data/imagenet-c"))
    size: Pixels = 224
    subset: NotNegative = 5000
    crop_pct: CropPct = 0.875

    def reads(self, data: Data) -> tuple[tuple[Data, str], ...]:
        """All 75 folders, or the images to corrupt."""
        if self.source == "generated":
            return ((data, data.val_split),)
        return tuple((folder, folder.val_split) for folder in self.folders().values())

    def identity(self, data: Data) -> dict[str, str]:
        """The code and the frost photographs that corrupt images on the fly."""
        return identity() if self.source == "generated" else {}

    def folders(self) -> dict[tuple[str, int], Data]:
        """The released folders by corruption and severity.

        Raises:
            ValueError: Naming every corruption and severity that is missing.
        """
        found: dict[tuple[str, int], Data] = {}
        missing = []
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                places = (Path(self.data.root, group, name) for group in GROUPS)
                place = next((p for p in places if (p / str(severity)).is_dir()), None)
                if place is None:
                    missing.append(f"{name}/{severity}")
                else:
                    found[name, severity] = replace(self.data, root=str(place), val_split=str(severity))
        if missing:
            raise ValueError(
                f"{self.data.root} lacks {len(missing)} of 75 folders CORRUPTION/SEVERITY, e.g. {missing[0]}; "
                "unpack all archives of ImageNet-C there, or set source to generated"
            )
        return found

    def check(self, model: Backbone, ctx: Context) -> None:
        """Classes must be the classifier's, and released files must have the size that it takes."""
        if self.source == "released" and model.arch.image_size != self.size:
            raise ValueError(
                f"the classifier takes {model.arch.image_size} pixels a side and {self.data.name} is stored "
                f"at {self.size}; it is never resized, so set source to generated"
            )
        name = ctx.data.name if self.source == "generated" else self.data.name
        class_indices(self._classes(ctx), model.classes, name)

    def parts(self, ctx: Context) -> list[Part]:
        """The subset first; of the released files one part a folder, of generated ones pieces of the set."""
        if self.source == "generated":
            return split_parts(ctx.scored_images(), seed=ctx.seed, subset=self.subset, size=1000)
        parts: list[Part] = []
        first: ImageSet | None = None
        for (name, severity), folder in self.folders().items():
            images = ImageSet(folder, folder.val_split)
            first = first or images
            if [images.image_id(i) for i in range(len(images))] != [first.image_id(i) for i in range(len(first))]:
                raise ValueError(f"{folder.root}/{folder.val_split} does not hold the same images as the first folder")
            parts += split_parts(
                images,
                seed=ctx.seed,
                subset=self.subset,
                prefix=f"{name}-{severity}",
                facets={"corruption": name, "severity": severity},
                size=len(images),
            )
        return sorted(parts, key=lambda part: not part.subset)  # stable

    def transform(self, model: Backbone) -> Transform:
        """None for released files."""
        return (
            StoredPixels(self.size)
            if self.source == "released"
            else EvalTransform(model.arch.image_size, self.crop_pct)
        )

    @torch.no_grad()
    def answers(
        self, part: Part, models: Mapping[str, Backbone], pixels: Tensor, batch: ImageBatch
    ) -> Iterator[tuple[str, Facets, Tensor]]:
        """Of generated sets, each image is corrupted once for all models."""
        for facets, images in self._views(part, pixels, batch):
            for name, model in models.items():
                yield name, facets, predict(model, images.float() / 255, part.images.classes)

    def _views(self, part: Part, pixels: Tensor, batch: ImageBatch) -> Iterator[tuple[Facets, Tensor]]:
        if self.source == "released":
            yield part.facets, pixels
            return
        yield {"corruption": CLEAN}, pixels
        seeds = torch.tensor(part.sample_seeds(batch))
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                facets: Facets = {"corruption": name, "severity": severity}
                yield facets, corrupt_as_released(pixels, name, severity, seeds)

    def measure(self, counts: Sequence[Count], ctx: Context) -> Iterator[Measurement]:
        """One row a corruption and severity."""
        benchmark = self.data.name
        if self.source == "generated":
            benchmark = f"{ctx.data.name}-c-generated"
            ctx.warnings.append("corruptions generated on the fly, not the released files")
            if frost_source() != "published":
                ctx.warnings.append("frost with a procedural texture instead of the published photographs")
        elif (Path(self.data.root) / MANIFEST).exists():
            ctx.warnings.append(f"files made by cim-bench data corrupt, not the released ones of {self.data.name}")
        ctx.warnings.extend(count_warnings(benchmark, max(count.n for count in counts)))
        place: dict[str, Any] = {"benchmark": benchmark, "split": "test", "chance": chance(self._classes(ctx))}
        for facets, right, n in counts:
            yield Measurement(metric="top1", value=right / n, n=n, facets=facets, **place)

    def _classes(self, ctx: Context) -> Sequence[str]:
        """Class folders of the corrupted images, among which answers are chosen."""
        folder = ctx.data if self.source == "generated" else next(iter(self.folders().values()))
        return ImageSet(folder, folder.val_split).classes
