"""Confusion matrices of single images, in Parquet: what every number of semantic segmentation is computed from.

A job keeps ``confusions/PART.parquet``: a column ``id``, and for each set of facets two columns of lists, the cells of
an image's matrix that are not 0 and how many pixels each holds. Cell ``truth * C + predicted`` counts the pixels of
class ``truth`` (0 to C - 1; pixels without a label are in no cell) that were taken for class ``predicted``.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cim_bench.common.files import write_atomic
from cim_bench.records.facets import FacetKey, Facets, check_facets, column_name, facet_key
from cim_bench.records.record import ProtocolInfo

PixelCounts: TypeAlias = NDArray[np.int64]
Fractions: TypeAlias = NDArray[np.float64]

CONFUSIONS = "confusions"
_ID = "id"
_CELLS, _COUNTS = "cells of ", "counts of "  # before the name of the facets
_FACETS = b"facets"  # of the metadata of a column of cells
_JOB, _CONTENT, _CLASSES = b"job", b"content", b"classes"  # of the file's: the job's key, a hash of all else, names
_LISTS = pa.list_(pa.int64())


class Cells(NamedTuple):
    """The confusion matrix of one image without its zeros.

    Attributes:
        cells: (K,) increasing, each ``truth * C + predicted``.
        counts: (K,) pixels, at least 1 in each.
    """

    cells: PixelCounts
    counts: PixelCounts


@dataclass(frozen=True, kw_only=True)
class Confusions:
    """The confusion matrices of a job's images.

    Attributes:
        ids: Of the images, in the set's order.
        classes: Names of the classes.
        found: By facets, one matrix an image.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    found: Mapping[FacetKey, Sequence[Cells]]

    def sums(self, facets: Facets) -> PixelCounts:
        """`class_sums` of what was found under these facets: (N, 3, C)."""
        return class_sums(self.found[facet_key(facets)], len(self.classes))


def to_cells(matrix: PixelCounts) -> Cells:
    """A confusion matrix without its zeros.

    Args:
        matrix: (C, C), rows by truth.
    """
    flat = np.ascontiguousarray(matrix, np.int64).reshape(-1)
    cells = np.flatnonzero(flat)
    return Cells(cells.astype(np.int64), flat[cells])


def class_sums(found: Sequence[Cells], classes: int) -> PixelCounts:
    """What intersections over unions are made of, image by image.

    Args:
        found: N matrices.
        classes: C.

    Returns:
        (N, 3, C): pixels of each class that were found, that the truth has, and that were predicted. Pixels without a
        label are in none of them.
    """
    sums = np.zeros((len(found), 3, classes), np.int64)
    if found:
        first = np.repeat(np.arange(len(found)) * 3 * classes, [len(matrix.cells) for matrix in found])
        counts = np.concatenate([matrix.counts for matrix in found])
        truth, predicted = np.divmod(np.concatenate([matrix.cells for matrix in found]), classes)
        right, flat = truth == predicted, sums.reshape(-1)
        np.add.at(flat, (first + truth)[right], counts[right])
        np.add.at(flat, first + classes + truth, counts)
        np.add.at(flat, first + 2 * classes + predicted, counts)
    return sums


def per_class_iou(sums: PixelCounts) -> Fractions:
    """Intersection over union of each class, over all pixels of the set; NaN where the union is empty.

    Args:
        sums: (..., 3, C) as of `class_sums`, summed over images.

    Source:
        open-mmlab/mmsegmentation, ``IoUMetric.total_area_to_metrics``.
    """
    found, truth, predicted = np.moveaxis(sums, -2, 0)
    return _ratio(found, truth + predicted - found)


def miou(sums: PixelCounts) -> Fractions:
    """Mean IoU over the classes that the truth has or that were predicted: (...,) from (..., 3, C); NaN without pixels.

    Source:
        open-mmlab/mmsegmentation, ``IoUMetric.total_area_to_metrics``: ``np.nanmean``.
    """
    return _mean(per_class_iou(sums))


def miou_present(sums: PixelCounts) -> Fractions:
    """Mean IoU over the classes that the truth has; arguments as for `miou`.

    A class that is predicted, and nowhere true, is an IoU of 0 in `miou` and left out here.

    Source:
        facebookresearch/detectron2, ``SemSegEvaluator.evaluate``: ``iou_valid = acc_valid & (union > 0)``.
    """
    return _mean(np.where(sums[..., 1, :] > 0, per_class_iou(sums), np.nan))


def mean_accuracy(sums: PixelCounts) -> Fractions:
    """Mean over the classes that the truth has of the share of their pixels that was found; as for `miou`.

    Source:
        ``mAcc`` of open-mmlab/mmsegmentation, ``mACC`` of facebookresearch/detectron2.
    """
    return _mean(_ratio(sums[..., 0, :], sums[..., 1, :]))


def pixel_accuracy(sums: PixelCounts) -> Fractions:
    """Share of the labelled pixels that were found; arguments as for `miou`.

    Source:
        ``aAcc`` of open-mmlab/mmsegmentation, ``pACC`` of facebookresearch/detectron2.
    """
    return _ratio(sums[..., 0, :].sum(-1), sums[..., 1, :].sum(-1))


# The numbers of a set by metric, from its (3, C) sums.
NUMBERS: Mapping[str, Callable[[PixelCounts], Fractions]] = {
    "miou": miou,
    "miou_present": miou_present,
    "mean_accuracy": mean_accuracy,
    "pixel_accuracy": pixel_accuracy,
}


def _ratio(over: PixelCounts, under: PixelCounts) -> Fractions:
    quotients: Fractions = np.divide(over, under, out=np.full(np.shape(under), np.nan), where=under > 0)
    return quotients


def _mean(values: Fractions) -> Fractions:
    """Over the last axis, of what is no NaN."""
    counted = ~np.isnan(values)
    return _ratio(np.where(counted, values, 0.0).sum(-1), counted.sum(-1))


def confusions_file(folder: Path, part: str) -> Path:
    """Where a job keeps the confusion matrices of a part."""
    return folder / CONFUSIONS / f"{part}.parquet"


def confusion_files(folder: Path) -> list[Path]:
    """The files of confusion matrices in a job's folder."""
    return sorted((folder / CONFUSIONS).glob("[!.]*.parquet"))


def find_job(folder: Path) -> Path | None:
    """The job's folder with confusion matrices: `folder` itself or the only one below it; ``None`` without any.

    Raises:
        ValueError: Naming those below it, if there are several.
    """
    if confusion_files(folder):
        return folder
    found = sorted({file.parent.parent for file in folder.rglob(f"{CONFUSIONS}/[!.]*.parquet")})
    if len(found) > 1:
        names = ", ".join(str(job.relative_to(folder)) for job in found)
        raise ValueError(f"{folder} has {len(found)} jobs of segmentation; give the folder of one: {names}")
    return found[0] if found else None


def write_confusions(
    file: Path,
    ids: Sequence[str],
    classes: Sequence[str],
    found: Sequence[tuple[Facets, Sequence[Cells]]],
    protocol: ProtocolInfo,
    key: str = "",
) -> None:
    """Write the confusion matrices of one part, whole or not at all.

    Args:
        file: As of `confusions_file`.
        ids: (N,) image ids.
        classes: Names of the C classes.
        found: N matrices by facets.
        protocol: What predicted; its settings tell how columns are called.
        key: The job's, which `read_confusions` asks for.

    Raises:
        ValueError: If facets are unknown or two of them would share a column, if there are not as many matrices as
            ids, or if one is not of these classes.
        OSError: Naming the file, if it cannot be written.
    """
    columns, fields = [pa.array(ids, pa.string())], [pa.field(_ID, pa.string())]
    taken: dict[str, object] = {}
    for facets, matrices in found:
        check_facets(facets)
        name = column_name(facets, protocol.settings)
        if name in taken:
            raise ValueError(f"facets {dict(facets)} and {taken[name]} are both called {name!r}; make them differ more")
        taken[name] = dict(facets)
        if len(matrices) != len(ids):
            raise ValueError(f"{len(matrices)} confusion matrices of {len(ids)} images under {dict(facets)}")
        for id_, matrix in zip(ids, matrices, strict=True):
            _check(matrix, len(classes), f"the confusion matrix of image {id_!r}")
        told = {_FACETS: json.dumps(dict(facets), allow_nan=False)}
        fields += [pa.field(_CELLS + name, _LISTS, metadata=told), pa.field(_COUNTS + name, _LISTS)]
        columns += [_lists([matrix.cells for matrix in matrices]), _lists([matrix.counts for matrix in matrices])]
    table = pa.table(columns, schema=pa.schema(fields))
    named = json.dumps(list(classes))
    table = table.replace_schema_metadata({_JOB: key, _CONTENT: _content(table, named), _CLASSES: named})
    memory = io.BytesIO()
    pq.write_table(table, memory)
    write_atomic(file, memory.getvalue())


def read_confusions(folder: Path, key: str = "") -> Confusions:
    """The confusion matrices of a job, those of all its parts.

    Args:
        folder: The job's.
        key: The job's; files of any are taken without it.

    Raises:
        ValueError: If there are none, naming the folder; naming the file, if one is damaged, another job's, was
            changed, or has other classes or facets than the first; naming folder and image, if one is there twice.
    """
    files = confusion_files(folder)
    if not files:
        raise ValueError(f"{folder} keeps no confusion matrices; delete it and evaluate again to have them")
    parts = [_read(file, key) for file in files]
    first = parts[0]
    for file, part in zip(files, parts, strict=True):
        if part.classes != first.classes or part.found.keys() != first.found.keys():
            raise ValueError(f"{file} has other classes or facets than {files[0].name}; delete {folder}, and run again")
    ids = tuple(id_ for part in parts for id_ in part.ids)
    if len(set(ids)) < len(ids):
        twice = next(id_ for place, id_ in enumerate(ids) if id_ in ids[:place])
        raise ValueError(f"{folder}: the confusion matrices hold image {twice!r} twice")
    found = {facets: [cells for part in parts for cells in part.found[facets]] for facets in first.found}
    return Confusions(ids=ids, classes=first.classes, found=found)


def _read(file: Path, key: str) -> Confusions:
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{file} is damaged ({reason}); delete its job's folder and run again") from error
    told = table.schema.metadata or {}
    if _ID not in table.column_names or not {_JOB, _CONTENT, _CLASSES} <= told.keys():
        raise ValueError(f"{file} does not hold confusion matrices; move it away")
    if key and told[_JOB].decode() != key:
        raise ValueError(f"{file} is not of this job; delete it and run again")
    named = told[_CLASSES].decode()
    if told[_CONTENT].decode() != _content(table, named):
        raise ValueError(f"{file} was changed after it was written; delete its job's folder and run again")
    found = {
        facet_key(json.loads(field.metadata[_FACETS])): [
            Cells(cells, counts)
            for cells, counts in zip(
                _arrays(table[field.name]), _arrays(table[_COUNTS + field.name.removeprefix(_CELLS)]), strict=True
            )
        ]
        for field in table.schema
        if field.name.startswith(_CELLS)
    }
    return Confusions(ids=tuple(table[_ID].to_pylist()), classes=tuple(json.loads(named)), found=found)


def _check(matrix: Cells, classes: int, what: str) -> None:
    cells, counts = matrix
    if cells.shape != counts.shape or cells.ndim != 1 or (counts < 1).any() or (np.diff(cells) < 1).any():
        raise ValueError(f"{what} needs increasing cells, and at least one pixel in each")
    if len(cells) and not 0 <= cells[0] <= cells[-1] < classes**2:
        raise ValueError(f"{what} has cells {cells[0]} to {cells[-1]}, of {classes} classes 0 to {classes**2 - 1}")


def _lists(arrays: Sequence[PixelCounts]) -> pa.Array:
    """Arrays as one column of lists."""
    offsets = np.cumsum([0, *map(len, arrays)])
    values = np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.int64()))


def _flat(column: pa.ChunkedArray) -> tuple[PixelCounts, PixelCounts]:
    """Values of a column of lists, one after the other, and the place behind the last of each list."""
    lists = column.combine_chunks()
    ends: PixelCounts = np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64))
    values: PixelCounts = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    return values, ends


def _arrays(column: pa.ChunkedArray) -> list[PixelCounts]:
    values, ends = _flat(column)
    return np.split(values, ends[:-1]) if len(ends) else []


def _content(table: pa.Table, classes: str) -> str:
    """A hash of names, ids, classes and numbers."""
    digest = hashlib.sha256(json.dumps([table.column_names, table[_ID].to_pylist(), classes]).encode())
    for name in table.column_names:
        if name != _ID:
            for array in _flat(table[name]):
                digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()
