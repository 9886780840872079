"""The outcome of each image, as evaluation jobs keep it beside their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cim_bench.records import outcomes as kept
from cim_bench.records.facets import FacetKey, Facets, facet_key
from cim_bench.records.outcomes import KEYS, outcome_files
from cim_bench.records.record import ProtocolInfo
from cim_bench.reports.stats.arrays import Flags


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The outcomes of a job.

    Attributes:
        frame: One row an image, with ``id``, ``label`` and columns of predictions. A prediction that an image lacks
            is missing (``pd.NA``).
        columns: The name of the column of each prediction, by facets.
    """

    frame: pd.DataFrame
    columns: Mapping[FacetKey, str]

    def has(self, facets: Facets) -> bool:
        """Whether anything was predicted under these facets."""
        return facet_key(facets) in self.columns

    def hits(self, facets: Facets) -> tuple[Flags, Flags]:
        """Which images have a prediction under `facets`; and for each of these, whether it is the label."""
        column = self.columns[facet_key(facets)]
        present = self.frame[column].notna().to_numpy(dtype=np.bool_)
        rows = self.frame.loc[present, [column, "label"]].to_numpy(dtype=np.int64)
        return present, rows[:, 0] == rows[:, 1]

    def wrong(self, wanted: Sequence[Facets]) -> tuple[pd.DataFrame, list[Flags]]:
        """Misclassified or not, for the images that have a prediction under each of `wanted`.

        Returns:
            The rows of these images, and for each of `wanted` one flag for each of them, in their order.
        """
        columns = [self.columns[facet_key(facets)] for facets in wanted]
        rows = self.frame.dropna(subset=columns)
        labels = rows["label"].to_numpy(dtype=np.int64)
        return rows, [rows[name].to_numpy(dtype=np.int64) != labels for name in columns]


def read_outcomes(folder: Path, protocol: ProtocolInfo) -> Outcomes:
    """Outcomes of a job, of the subset alone where its records are partial.

    Files with the same columns are chunks of images and are stacked; files with different columns are joined by id.

    Args:
        folder: The job's.
        protocol: That of its records.

    Raises:
        ValueError: If there are none, naming the folder; naming the file, if one is damaged or lacks ``id`` or
            ``label``; naming folder and image, if an image is there twice or with two labels.
    """
    files = outcome_files(folder, partial=protocol.partial)
    if not files:
        raise ValueError(f"{folder} keeps no outcomes; delete it and evaluate again to have them")
    chunks: dict[tuple[str, ...], list[pa.Table]] = {}
    columns: dict[FacetKey, str] = {}
    for file in files:
        table = kept.read_outcomes(file)
        chunks.setdefault(tuple(sorted(table.column_names)), []).append(table)
        columns |= {facet_key(facets): name for name, facets in kept.facets_by_column(table, protocol).items()}
    predicted = [name for names in chunks for name in names if name not in KEYS]
    if twice := sorted({name for name in predicted if predicted.count(name) > 1}):
        raise ValueError(f"{folder}: two files with different columns both hold predictions {twice[0]!r}")
    tables = [pa.concat_tables([table.select(names) for table in found]) for names, found in chunks.items()]
    return Outcomes(frame=_side_by_side(tables, folder), columns=columns)


def _side_by_side(tables: Sequence[pa.Table], folder: Path) -> pd.DataFrame:
    """Tables with different predictions as one, by image."""
    first, *others = tables
    # As a rule each file holds the same images in the same order: then nothing is looked up, and the ids, which are
    # most of the work, are read once.
    alike = [all(first[name].equals(other[name]) for name in KEYS) for other in others]
    same = [other.drop_columns(list(KEYS)).to_pandas() for other, found in zip(others, alike, strict=True) if found]
    whole: pd.DataFrame = pd.concat([_unique(first.to_pandas(), folder), *same], axis=1)
    for other, found in zip(others, alike, strict=True):
        if not found:
            whole = _joined(whole, _unique(other.to_pandas(), folder), folder)
    return whole


def _unique(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    twice = frame["id"].duplicated()
    if twice.any():
        raise ValueError(f"{folder}: the outcomes hold image {frame['id'][twice].iloc[0]!r} twice")
    return frame


def _joined(one: pd.DataFrame, two: pd.DataFrame, folder: Path) -> pd.DataFrame:
    whole = pd.concat([_nullable(one), _nullable(two).rename(columns={"label": "other label"})], axis=1)
    label, other = whole["label"], whole.pop("other label")
    clash = label.notna() & other.notna() & (label != other)
    if clash.any():
        raise ValueError(f"{folder}: the outcomes give image {whole.index[clash][0]!r} two labels")
    whole["label"] = label.fillna(other)
    return whole.reset_index(names="id")


def _nullable(frame: pd.DataFrame) -> pd.DataFrame:
    """By id, with whole numbers that can be missing."""
    return frame.set_index("id").astype("Int64")
