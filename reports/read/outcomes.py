"""The outcome of each image, as evaluation jobs keep it beside their records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Flags: TypeAlias = NDArray[np.bool_]
OUTCOMES = "outcomes"
KEYS = ("id", "label")


def outcome_files(folder: Path, *, partial: bool = False) -> list[Path]:
    """The Parquet files of a job folder: the parts in ``outcomes/``, or the ``outcomes.parquet`` of older runs.

    Args:
        folder: The job's.
        partial: Only the parts of the subset that is measured first, on which partial records rest; later parts are
            there while the job goes on.
    """
    parts = sorted((folder / OUTCOMES).glob("[!.]*-subset.parquet" if partial else "[!.]*.parquet"))
    single = folder / f"{OUTCOMES}.parquet"
    return parts or ([single] if single.exists() else [])


def read_outcomes(folder: Path, *, partial: bool = False) -> pd.DataFrame:
    """Outcomes of a job: one row an image, with ``id``, ``label`` and a column of predictions for each variant.

    Files with the same columns are chunks of images and are stacked; files with different columns are joined by id.
    A prediction that an image lacks is missing (``pd.NA``).

    Args:
        folder: The job's.
        partial: As for `outcome_files`.

    Raises:
        ValueError: If there are none, naming the folder; naming the file, if one is corrupt or lacks ``id`` or
            ``label``; naming folder and image, if an image is there twice or with two labels.
    """
    files = outcome_files(folder, partial=partial)
    if not files:
        raise ValueError(f"{folder} keeps no outcomes; delete it and evaluate again to have them")
    chunks: dict[tuple[str, ...], list[pa.Table]] = {}
    for file in files:
        table = _read(file)
        chunks.setdefault(tuple(sorted(table.column_names)), []).append(table)
    first, *others = [pa.concat_tables([t.select(names) for t in found]) for names, found in chunks.items()]
    predicted = [name for names in chunks for name in names if name not in KEYS]
    if twice := sorted({name for name in predicted if predicted.count(name) > 1}):
        raise ValueError(f"{folder}: two files with different columns both hold predictions {twice[0]!r}")
    # As a rule each file holds the same images in the same order: then nothing is looked up, and the ids, which are
    # most of the work, are read once.
    alike = [all(first[name].equals(other[name]) for name in KEYS) for other in others]
    same = [other.drop_columns(list(KEYS)).to_pandas() for other, found in zip(others, alike, strict=True) if found]
    whole: pd.DataFrame = pd.concat([_unique(first.to_pandas(), folder), *same], axis=1)
    for other, found in zip(others, alike, strict=True):
        if not found:
            whole = _joined(whole, _unique(other.to_pandas(), folder), folder)
    return whole


def column_of(frame: pd.DataFrame, variant: str) -> str | None:
    """The column with a variant's predictions (``prediction`` for the nameless one); ``None`` if there is none."""
    name = variant or "prediction"
    return name if name in frame.columns and name not in KEYS else None


def hits(frame: pd.DataFrame, column: str) -> tuple[Flags, Flags]:
    """Which images have a prediction in `column`; and for each of these, whether it is the label."""
    present = frame[column].notna().to_numpy(dtype=np.bool_)
    rows = frame.loc[present, [column, "label"]].to_numpy(dtype=np.int64)
    return present, rows[:, 0] == rows[:, 1]


def wrong(frame: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, dict[str, Flags]]:
    """Misclassified or not, for the images that have a prediction in each of `columns`.

    Returns:
        The rows of these images, and by column one flag for each of them, in their order.
    """
    rows = frame.dropna(subset=list(columns))
    labels = rows["label"].to_numpy(dtype=np.int64)
    return rows, {name: rows[name].to_numpy(dtype=np.int64) != labels for name in columns}


def _read(file: Path) -> pa.Table:
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{file} is not a readable Parquet file ({reason}); delete it and evaluate again") from error
    if lacking := [name for name in KEYS if name not in table.column_names]:
        raise ValueError(f"{file} has no column {' and '.join(lacking)}; it does not hold outcomes")
    for name in table.column_names:
        if name != "id" and table.schema.field(name).type != pa.int64():
            raise ValueError(f"{file}: column {name!r} does not hold whole numbers (int64); it does not hold outcomes")
    return table


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
