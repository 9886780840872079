"""Features of image sets on disk: made in one pass a set for all models that want it, and read memory-mapped.

A folder keeps, of each set, ``SET.npy`` and ``SET.labels.npy`` with a row an image in the set's order, and ``SET.done``
with a byte an image that turns 1 once its rows are on disk: a killed run goes on with the images that lack it. The file
``key`` says whose features they are.
"""

from __future__ import annotations

import errno
import io
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cim_bench.common.files import remove, write_atomic
from cim_bench.common.streams import say
from cim_bench.engine.devices import make_accelerator
from cim_bench.engine.inference import LabelledImages, Transform, image_batches
from cim_bench.spec import Machine

KEPT_EVERY = 2**26  # bytes of features that a kill may cost
Extractor = Callable[[Tensor], Tensor]  # from (B, 3, H, W) uint8 on the device to features (B, ...)


class SetFeatures(NamedTuple):
    """Features of a set, memory-mapped, in the set's order.

    Attributes:
        values: (N, ...) as the extractor gave them.
        labels: (N, ...) as the set gave them.
    """

    values: NDArray[Any]
    labels: NDArray[Any]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Copies of both in main memory."""
        return torch.from_numpy(np.array(self.values)), torch.from_numpy(np.array(self.labels))


class FeatureFile:
    """The features of one set for one model; several processes may write rows of it at once.

    Args:
        folder: Of the files.
        name: The set's, in their names.
        images: How many the set has.
    """

    def __init__(self, folder: Path, name: str, images: int) -> None:
        self.rows = [_Rows(folder / f"{name}{suffix}.npy", images) for suffix in ("", ".labels")]
        self.done, self.images = folder / f"{name}.done", images
        self.written: list[int] = []
        self.pending = 0

    def missing(self) -> NDArray[np.bool_]:
        """(N,) which images have no rows yet.

        Raises:
            ValueError: Naming the file, if it is of another number of images.
        """
        if not self.done.exists():
            return np.ones(self.images, dtype=bool)
        flags = np.fromfile(self.done, dtype=np.uint8)
        if len(flags) != self.images:
            raise ValueError(f"{self.done} is of {len(flags)} images, and the set has {self.images}; delete its folder")
        return np.equal(flags, 0)

    def write(self, places: list[int], values: NDArray[Any], labels: NDArray[Any]) -> None:
        """Write the rows of some images.

        Raises:
            OSError: Naming the file, if it cannot be written.
            ValueError: Naming the file, if it holds rows of another shape.
        """
        for rows, found in zip(self.rows, (values, labels), strict=True):
            rows.put(places, found)
        self.written += places
        self.pending += values.nbytes + labels.nbytes
        if self.pending >= KEPT_EVERY:
            self.keep()

    def keep(self) -> None:
        """Have what was written survive from here on: the rows reach the disk before it is said that they are there."""
        if not self.written:
            return
        for rows in self.rows:
            rows.sync()
        handle = os.open(self.done, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.truncate(handle, self.images)
            for place in self.written:
                os.pwrite(handle, b"\1", place)
        finally:
            os.close(handle)
        self.written, self.pending = [], 0

    def close(self) -> None:
        """Close the files."""
        for rows in self.rows:
            rows.close()

    def read(self) -> SetFeatures:
        """All of them.

        Raises:
            ValueError: Naming the file, if it is damaged.
        """
        return SetFeatures(*(rows.read() for rows in self.rows))


def extract_features(
    extractors: Mapping[str, Extractor],
    files: Mapping[str, FeatureFile],
    transforms: Mapping[str, Transform],
    images: LabelledImages,
    *,
    machine: Machine,
) -> None:
    """Make what is missing, in one pass: each image that any model lacks is decoded once.

    Args:
        extractors: By model.
        files: Where their features go, of the same names.
        transforms: What prepares an image for each; equal ones are applied once.
        images: The set.
        machine: Device and workers. A process holds one batch of features at a time.

    Raises:
        ImageError: Naming an image that cannot be read; what was made before it is kept.
        OSError: Naming the file, if it cannot be written.
    """
    lacking = {name: file.missing() for name, file in files.items()}
    make_accelerator(machine).wait_for_everyone()  # all have looked before any of them writes
    places = np.flatnonzero(np.any(list(lacking.values()), axis=0)).tolist()
    wanted = {name: transforms[name] for name, lacks in lacking.items() if lacks.any()}
    if not places:
        return
    groups: dict[Transform, list[str]] = defaultdict(list)
    for name, transform in wanted.items():
        groups[transform].append(name)
    try:
        with torch.no_grad():
            for batch in image_batches(images.take(places), list(groups), machine=machine):
                at, labels = [places[i] for i in batch.indices.tolist()], batch.labels.cpu().numpy()
                for transform, names in groups.items():
                    for name in names:
                        chosen = np.flatnonzero(lacking[name][at])
                        if len(chosen):
                            values = extractors[name](batch.images[transform]).cpu().numpy()
                            files[name].write([at[i] for i in chosen], values[chosen], labels[chosen])
    finally:
        for file in files.values():
            file.keep()
            file.close()


def claim(folder: Path, key: str, *, machine: Machine) -> None:
    """Make a folder of features this key's: those of another key are set aside, those without a key removed.

    Args:
        folder: Of the features.
        key: Of all that they depend on; empty if nobody knows, so that nothing there can be used again.
        machine: Whose main process does it, while the others wait.
    """
    engine = make_accelerator(machine)
    if engine.is_main_process:
        told = folder / "key"
        kept = told.read_text(encoding="utf-8") if told.exists() else ""
        if folder.exists() and kept != key and kept:
            aside = folder.with_name(f"{folder.name}.unusable")
            remove(aside)
            folder.replace(aside)
            say(f"{folder} holds features of another job ({kept[:12]}); they are kept as {aside.name}, and made anew")
        elif folder.exists() and not (kept and key):
            remove(folder)
        write_atomic(told, key)
    engine.wait_for_everyone()


class _Rows:
    """A .npy file whose rows are written in any order."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count
        self.handle, self.start = -1, 0

    def put(self, places: list[int], rows: NDArray[Any]) -> None:
        try:
            if self.handle < 0:
                self._open(rows.dtype, rows.shape[1:])
            for place, row in zip(places, np.ascontiguousarray(rows).reshape(len(rows), -1), strict=True):
                if os.pwrite(self.handle, row.data, self.start + place * row.nbytes) < row.nbytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            size = self.count * rows[:1].nbytes / 1e9
            raise OSError(
                error.errno,
                f"cannot write {self.path}, of {self.count} images and {size:.2g} GB: {error.strerror}; free space, "
                "and the same command goes on",
            ) from error

    def _open(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Open or make the file at its full size: a full disk is known before the pass, not at its end."""
        header = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(header, {**described, "shape": (self.count, *shape)})
        head = header.getvalue()
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        self.handle, self.start = handle, len(head)
        kept = os.pread(handle, len(head), 0)
        if kept.strip(b"\0") and kept != head:
            raise ValueError(f"{self.path} holds rows of another shape or type; delete its folder and run again")
        os.pwrite(handle, head, 0)
        total = len(head) + self.count * dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, total)
        else:  # macOS
            os.truncate(handle, max(total, os.fstat(handle).st_size))

    def sync(self) -> None:
        os.fsync(self.handle)

    def close(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def read(self) -> NDArray[Any]:
        try:
            rows: NDArray[Any] = np.load(self.path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{self.path} is damaged ({error}); delete its folder and run again") from error
        if len(rows) != self.count:
            raise ValueError(f"{self.path} has {len(rows)} rows for {self.count} images; delete its folder")
        return rows
