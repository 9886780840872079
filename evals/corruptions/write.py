"""Writes corrupted copies of an image set to disk, in the layout of the published ImageNet-C."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.io import encode_jpeg

from cim_bench.common.files import write_atomic
from cim_bench.common.progress import Meter
from cim_bench.common.seeds import sample_seed
from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine.devices import one_thread
from cim_bench.evals.corruptions.generate import (
    CORRUPTIONS,
    RELEASED_QUALITY,
    SEVERITIES,
    VERSION,
    corrupt,
    frost_identity,
    frost_source,
)
from cim_bench.records.provenance import package_versions
from cim_bench.spec import Machine

MANIFEST = "manifest.json"
PACKAGES = ("cim-bench", "torch", "torchvision", "timm", "pillow", "numpy")  # that can move a pixel
END_OF_JPEG = b"\xff\xd9"


def write_corrupted(
    images: ImageSet,
    out: Path,
    *,
    corruptions: Sequence[str],
    severities: Sequence[int],
    size: int,
    crop_pct: float,
    seed: int,
    machine: Machine,
) -> int:
    """Write ``<out>/<corruption>/<severity>/<class>/<stem>.JPEG`` (quality 85) for every image, and a manifest.

    Each source image is decoded once for all its copies, and not at all where they are there already: a run that
    was stopped goes on. An image's draws follow from `sample_seed`.

    Args:
        images: The set.
        out: The folder to fill; may hold copies that were made with the same settings.
        corruptions: Names of `CORRUPTIONS`.
        severities: Of 1 to 5.
        size: Side of the copies in pixels; the published ones have 224.
        crop_pct: Fraction of the resized short side that the centre crop keeps; the published 224 of 256 is 0.875.
        seed: Of every random choice.
        machine: Its `workers` share the work, encoding included; all of it is the processor's.

    Returns:
        How many files were written, the manifest left out.

    Raises:
        ValueError: Naming the choices for an unknown corruption or severity; naming two images that would be
            written to one file; or because `out` holds copies made with other settings.
    """
    if wrong := [*(set(corruptions) - set(CORRUPTIONS)), *(set(severities) - set(SEVERITIES))]:
        raise ValueError(f"no {wrong[0]!r}; choose corruptions of {', '.join(CORRUPTIONS)} and severities of 1 to 5")
    variants = [(name, severity) for name in corruptions for severity in severities]
    copies = _Copies(images, out, _names(images), variants, EvalTransform(size, crop_pct), seed)
    settings = {
        "version": VERSION,
        "packages": package_versions(PACKAGES),
        "images": {"name": images.name, "split": images.split, "fingerprint": images.fingerprint},
        "size": size,
        "crop_pct": crop_pct,
        "quality": RELEASED_QUALITY,
        "seed": seed,
        "frost_source": frost_source(),
        "frost": frost_identity(),
    }
    _write_manifest(out / MANIFEST, settings, variants)
    loader = DataLoader(copies, batch_size=None, num_workers=machine.loader_processes, worker_init_fn=one_thread)
    written = 0
    with Meter(f"corrupt {images.name}/{images.split}", len(copies)) as meter:
        for count in loader:
            written += count
            meter.step(note=f"{written} files")
    return written


class _Copies(Dataset[int]):
    """Item i writes the copies of image i that are not there yet, and is their number."""

    def __init__(
        self,
        images: ImageSet,
        out: Path,
        names: list[str],
        variants: list[tuple[str, int]],
        transform: EvalTransform,
        seed: int,
    ) -> None:
        self.images, self.out, self.names = images, out, names
        self.variants, self.transform, self.seed = variants, transform, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> int:
        name = self.names[index]
        files = {self.out / kind / str(level) / f"{name}.JPEG": (kind, level) for kind, level in self.variants}
        missing = {path: variant for path, variant in files.items() if not _whole(path)}
        if not missing:
            return 0
        pixels = self.transform(self.images.read(index)[0])[None]
        seeds = torch.tensor([sample_seed(self.seed, self.images.image_id(index))])
        for path, (kind, level) in missing.items():
            _write(path, encode_jpeg(corrupt(pixels, kind, level, seeds)[0], RELEASED_QUALITY).numpy().tobytes())
        return len(missing)


def _names(images: ImageSet) -> list[str]:
    """``class/stem`` of every image.

    Raises:
        ValueError: If two images would have one, or the set knows no labels without decoding.
    """
    samples = getattr(images.reader, "samples", None)
    if samples is None:
        raise ValueError(f"{images.name}: only image folders, tar files and shards can be corrupted to files")
    seen: dict[str, str] = {}
    for position, index in enumerate(images.indices):
        label = getattr(images.reader, "targets", {index: samples[index][1]})[index]
        source = images.image_id(position)
        name = f"{images.classes[label]}/{Path(source).stem}"
        if name in seen:
            raise ValueError(f"{seen[name]} and {source} would both be written to {name}.JPEG; rename one of them")
        seen[name] = source
    return list(seen)


def _write_manifest(path: Path, settings: dict[str, Any], variants: list[tuple[str, int]]) -> None:
    """Write the settings and what is there or under way; earlier runs may have asked for other corruptions.

    Raises:
        ValueError: If copies made with other settings are there.
    """
    asked = {f"{name}/{severity}" for name, severity in variants}
    if path.exists():
        earlier = json.loads(path.read_text())
        asked |= set(earlier.pop("variants"))
        if odd := [key for key in settings if earlier.get(key) != settings[key]]:
            told = "; ".join(f"{key} was {earlier.get(key)}, is {settings[key]}" for key in odd)
            raise ValueError(f"{path.parent} holds copies made with other settings ({told}); choose another folder")
    write_atomic(path, json.dumps(settings | {"variants": sorted(asked)}, indent=1) + "\n")


def _whole(path: Path) -> bool:
    """Whether the file is there and ends as a JPEG does: after a power failure it may be there and empty."""
    try:
        return path.read_bytes().endswith(END_OF_JPEG)
    except FileNotFoundError:
        return False


def _write(path: Path, content: bytes) -> None:
    """Write a whole file or nothing. Not flushed to disk as records are: it can be made again, and is checked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
