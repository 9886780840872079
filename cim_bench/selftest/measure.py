"""``cim-bench selftest``: measure a released classifier on clean images and compare with its published accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from annotated_types import Interval

from cim_bench.common.ranges import NotNegative, Pixels, Settings
from cim_bench.contracts.parts import stratified_order
from cim_bench.data.images import ImageSet
from cim_bench.engine.devices import device_name, make_accelerator
from cim_bench.engine.inference import run_models
from cim_bench.evals.classes import class_indices
from cim_bench.models.backbone import SIZED, load_backbone
from cim_bench.models.checkpoint import Meta
from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.reports.stats.intervals import wilson_interval
from cim_bench.selftest.diagnosis import OFFICIAL, better_ways, wrong_folders, wrong_order
from cim_bench.selftest.publications import Preparation, Publication, Resampling, prepared, publications, recognise
from cim_bench.spec import Data, FromCheckpoint, Machine

VALIDATION = 50_000
EXACT = 0.001  # the very images of a publication, prepared alike: what other decoders and devices may move


@dataclass(frozen=True, kw_only=True)
class SelfTest(Settings):
    """What a self-test compares with, and on which images.

    Attributes:
        data: The set; its validation split is measured.
        machine: Device, workers, micro-batch.
        published: Name of the publication, where the checkpoint is not recognised as one; a wrong name lists all.
        expected: Published top-1 of weights that are not listed, a fraction such as 0.8366.
        subset: Images to measure, all classes equally often; 0 for all.
        resize: Pixels of the short side before the centre crop; ``None``: as published, or 224 of 256.
        interpolation: Of the resize; ``None``: as published, or bicubic.
    """

    data: Data = field(default_factory=Data)
    machine: Machine = field(default_factory=Machine)
    published: str = ""
    expected: Annotated[float, Interval(gt=0, le=1)] | None = None
    subset: NotNegative = 0
    resize: Pixels | None = None
    interpolation: Resampling | None = None


@dataclass(frozen=True, kw_only=True)
class SelfTestResult:
    """What a self-test found.

    Attributes:
        right: Images that were classified right.
        n: Images measured.
        published: The published top-1, a fraction.
        facts: What was measured on what, and in which way, by title.
        notes: What a reader must know beside the verdict.
    """

    right: int
    n: int
    published: float
    facts: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the measured top-1."""
        return wilson_interval(self.right / self.n, self.n)

    @property
    def agrees(self) -> bool:
        """Whether the interval holds the published top-1."""
        low, high = self.interval
        return low <= self.published <= high

    def __str__(self) -> str:
        low, high = self.interval
        measured = f"{100 * self.right / self.n:.2f} % [{100 * low:.2f}, {100 * high:.2f}]  n={self.n:,}"
        off = f"{100 * (self.right / self.n - self.published):+.2f} points from the published top-1"
        verdict = f"agrees: {off}, which the interval holds" if self.agrees else f"does NOT agree: {off}"
        rows = [
            *self.facts.items(),
            ("measured", measured),
            ("verdict", verdict),
            *(("note", note) for note in self.notes),
        ]
        return "\n".join(f"  {title:<13} {text}" for title, text in rows)


def self_test(source: FromCheckpoint, asked: SelfTest) -> SelfTestResult:
    """Measure a classifier on clean validation images, each decoded once, and set it beside its publication.

    Args:
        source: The checkpoint.
        asked: What to compare with, and where.

    Raises:
        ValueError: If it is no classifier of the images' classes, or nobody told what is published.
    """
    checkpoint, _ = open_checkpoint(replace(source, kind="classifier"))
    meta = checkpoint.meta
    publication = _publication(source, meta, asked)
    way = _preparation(meta, publication, asked)
    whole = images = ImageSet(asked.data, asked.data.val_split)
    if 0 < asked.subset < len(whole):
        images = whole.take(sorted(stratified_order(whole, seed=0)[: asked.subset]))
    outputs = class_indices(images.classes, meta.classes, images.name)
    model = load_backbone(checkpoint, what=source.path).to(make_accelerator(asked.machine).device)
    found, labels = run_models({"": lambda pixels: model(pixels).argmax(1)}, images, way, machine=asked.machine)
    predictions, targets = found[""].long(), outputs[labels]
    facts = {
        "weights": f"{meta.method} {meta.arch}, compared as {publication.name}",
        "published": f"{100 * publication.top1:.2f} %  {publication.source}",
        "preparation": f"{way}; mean {_numbers(meta.mean)}, std {_numbers(meta.std)}",
        "images": _which(images, len(whole)),
        "device": device_name(asked.machine.device),
    }
    result = SelfTestResult(
        right=int((predictions == targets).sum()), n=len(targets), published=publication.top1, facts=facts, notes=()
    )
    notes = [*_differences(meta, publication, way), *_about(images, result)]
    if not result.agrees:
        reasons = (
            wrong_order(predictions, targets, meta.classes),
            better_ways(model, images, way, outputs, asked.machine),
        )
        notes += filter(None, reasons)
    return replace(result, notes=tuple(notes))


def _publication(source: FromCheckpoint, meta: Meta, asked: SelfTest) -> Publication:
    """What the checkpoint is compared with.

    Raises:
        ValueError: If that cannot be told, or is of another network.
    """
    known, found = publications(), recognise(source, meta)
    if asked.published and asked.published not in known:
        raise ValueError(f"no publication is called {asked.published!r}; choose one of {', '.join(known)}")
    named = known.get(asked.published)
    if found and named not in (None, found):
        raise ValueError(f"{source.path} is {found.name} by its content, {asked.published} was named; leave it out")
    chosen = found or named
    if chosen and chosen.arch != meta.arch.name:
        raise ValueError(f"{chosen.name} is {chosen.arch}, and {source.path} is {meta.arch}; name its own publication")
    if asked.expected is None and chosen is None:
        raise ValueError(
            f"{source.path} is none of the weights whose accuracy is listed; name their publication with --published "
            f"({', '.join(known)}), or give the published top-1, such as --expected 0.8366"
        )
    told = Publication(
        name="told by the user",
        top1=asked.expected or 0.0,
        source="--expected",
        arch=meta.arch.name,
        known_by="",
        preparation=prepared(meta.arch.image_size, 0.875),
        mean=meta.mean,
        std=meta.std,
    )
    if chosen is None or asked.expected is None:
        return chosen or told
    return replace(chosen, top1=told.top1, source=told.source)


def _preparation(meta: Meta, publication: Publication, asked: SelfTest) -> Preparation:
    """As published, but for what the user says.

    Raises:
        ValueError: If the network takes another input size.
    """
    way, size = publication.preparation, meta.arch.image_size
    if meta.arch.name.startswith(SIZED) and size != way.size:
        raise ValueError(
            f"{publication.name} was measured at {way.size} pixels, and the positions of this checkpoint are for "
            f"{size}; leave --image-size out, or give --image-size {way.size}"
        )
    way = replace(way, resize=asked.resize or way.resize, interpolation=asked.interpolation or way.interpolation)
    if way.resize < way.size:
        raise ValueError(f"resize {way.resize} is smaller than the crop of {way.size}; give at least {way.size}")
    return way


def _differences(meta: Meta, publication: Publication, way: Preparation) -> Iterator[str]:
    """What is not done as the publication did it."""
    if way != publication.preparation:
        yield f"not prepared as published, which is: {publication.preparation}"
    if (meta.mean, meta.std) != (publication.mean, publication.std):
        published = f"mean {_numbers(publication.mean)}, std {_numbers(publication.std)}"
        yield f"not normalised as published, which is: {published}"


def _is_official(images: ImageSet) -> bool:
    return all(OFFICIAL.search(images.image_id(i)) for i in range(len(images)))


def _which(images: ImageSet, whole: int) -> str:
    name = f"{images.name}/{images.split}"
    part = f" of {whole:,}" if len(images) < whole else ""
    what = (
        "of ImageNet-1k's 50,000 validation images" if _is_official(images) else "NOT ImageNet-1k's validation images"
    )
    return f"{len(images):,}{part} in {name}: by their names {what}"


def _about(images: ImageSet, result: SelfTestResult) -> Iterator[str]:
    """What the images say about the verdict."""
    if not _is_official(images):
        yield (
            f"the published top-1 is of other images than these (e.g. {images.image_id(0)}), which may be easier or "
            "harder: a difference says nothing against weights or machine, and agreement little for them"
        )
        return
    if text := wrong_folders(images):
        yield text
    if result.n == VALIDATION and abs(result.right / result.n - result.published) > EXACT:
        yield (
            f"on the very images of the publication {100 * EXACT:.1f} points are more than chance: look at the resize, "
            "the version of Pillow and the precision"
        )


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)
