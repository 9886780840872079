"""Open or decode image files, in parallel, and find those that are unreadable or wrong; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple, cast

from PIL import Image

from cim_bench.common.errors import UNREADABLE
from cim_bench.common.progress import Meter
from cim_bench.data.check.layouts import printable
from cim_bench.data.pixels import to_rgb


@dataclass(frozen=True, kw_only=True)
class FileBatch:
    """Some images of one split.

    Attributes:
        split: The split's name.
        folder: Its folder.
        images: File names in it.
        decode: Whether to decode the images as ``ImageSet.read`` does, or to read their headers only.
        pixels: The (width, height) each must have, ``None`` for any.
        annotations: The path of each image's annotation, ``""`` for none; empty for no segmentation.
        last_label: The largest label an annotation may hold; ``None`` for any.
        ignored: A label that any annotation may hold.
    """

    split: str
    folder: str
    images: tuple[str, ...]
    decode: bool
    pixels: tuple[int, int] | None = None
    annotations: tuple[str, ...] = ()
    last_label: int | None = None
    ignored: int | None = None


class Fault(NamedTuple):
    """One image that is not as it should be; `name` is its id in `split`."""

    split: str
    name: str
    kind: Literal["unreadable", "pixels", "labels"]
    reason: str


def batch_faults(batch: FileBatch) -> list[Fault]:
    """The faults of a batch, at most one an image. An unreadable annotation counts as its image's fault."""
    found = []
    annotations = batch.annotations or ("",) * len(batch.images)
    for name, annotation in zip(batch.images, annotations, strict=True):
        fault = _fault(batch, name, annotation)
        if fault is not None:
            found.append(Fault(batch.split, name, *fault))
    return found


def find_faults(batches: Iterable[FileBatch], *, workers: int, meter: Meter) -> Iterator[Fault]:
    """The faults of all batches, in order.

    Args:
        batches: The files.
        workers: Processes; 0 for this one.
        meter: Steps once for each image.

    Raises:
        OSError: If a process died: no memory was left, or a file crashed the decoder.
    """
    batches = list(batches)
    if workers == 0:
        for batch in batches:
            yield from batch_faults(batch)
            meter.step(len(batch.images))
        return
    # spawned: a fork of a process that runs torch or the meter's thread can hang
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    finished = 0
    try:
        for batch, found in zip(batches, pool.map(batch_faults, batches), strict=True):
            yield from found
            meter.step(len(batch.images))
            finished += 1
    except BrokenProcessPool as error:
        near = batches[finished]
        raise OSError(
            f"a process died while it decoded images, near {near.folder}/{near.images[0]}: if memory ran out, set "
            "--workers to less, else replace the file there that crashes the decoder"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)  # or an interrupt would wait for all that is queued


def _fault(
    batch: FileBatch, name: str, annotation: str
) -> tuple[Literal["unreadable", "pixels", "labels"], str] | None:
    """What is wrong with one image (kind, reason), or nothing."""
    try:
        with Image.open(Path(batch.folder, name)) as image:
            size = image.size
            if batch.decode:
                to_rgb(image)
    except UNREADABLE as error:
        return "unreadable", _message(error)
    if batch.pixels is not None and size != batch.pixels:
        return "pixels", f"is {size[0]}x{size[1]} pixels"
    if not annotation:
        return None
    try:
        with Image.open(annotation) as image:
            image.load()
            return _wrong_labels(image, size, batch.last_label, batch.ignored)
    except UNREADABLE as error:
        return "unreadable", f"its annotation: {_message(error)}"


def _largest_label(image: Image.Image, ignored: int | None) -> float:
    if image.mode in ("L", "P"):
        counts = enumerate(image.histogram())
        return max((label for label, count in counts if count and label != ignored), default=0)
    _, largest = cast("tuple[float, float]", image.getextrema())  # a pair, for there is one band
    return largest


def _message(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))


def _wrong_labels(
    image: Image.Image, size: tuple[int, int], last_label: int | None, ignored: int | None
) -> tuple[Literal["labels"], str] | None:
    """What is wrong with an annotation, decoded, of an image of that size."""
    if len(image.getbands()) != 1:
        return "labels", f"has an annotation of mode {image.mode}, not one label a pixel"
    if image.size != size:
        return "labels", f"is {size[0]}x{size[1]} pixels, its annotation {image.size[0]}x{image.size[1]}"
    if last_label is None:
        return None
    largest = _largest_label(image, ignored)
    if largest > last_label:
        return "labels", f"has an annotation with label {largest}"
    return None
