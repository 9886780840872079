"""The outcome of every sample, in Parquet: what intervals, paired tests and later scores are computed from.

A job keeps ``outcomes/PART.parquet``: columns ``id`` and ``label``, and one column of predicted labels for
each variant. An answer is right where it equals the label.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cim_bench.common.files import write_atomic

Labels: TypeAlias = NDArray[np.int64]

OUTCOMES = "outcomes"


def outcomes_file(folder: Path, part: str) -> Path:
    """Where a job keeps the outcomes of a part."""
    return folder / OUTCOMES / f"{part}.parquet"


def write_outcomes(
    folder: Path, part: str, ids: Sequence[str], labels: Labels, predictions: Mapping[str, Labels]
) -> None:
    """Write the outcomes of one part, whole or not at all.

    Args:
        folder: The job's.
        part: Its name; a file name.
        ids: (N,) image ids.
        labels: (N,)
        predictions: (N,) predicted labels by variant; the empty variant's column is called ``prediction``.

    Raises:
        OSError: Naming the file, if it cannot be written.
    """
    columns = {"id": pa.array(ids, pa.string()), "label": labels}
    columns |= {variant or "prediction": values for variant, values in predictions.items()}
    memory = io.BytesIO()
    pq.write_table(pa.table(columns), memory)
    write_atomic(outcomes_file(folder, part), memory.getvalue())


def read_outcomes(file: Path) -> pa.Table:
    """One part's outcomes.

    Raises:
        ValueError: Naming the file, if it is damaged.
    """
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} is damaged ({str(error).splitlines()[0]}); delete it and run the same command again"
        ) from error


def tally(files: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Right answers and number of images by variant, over all parts.

    Raises:
        ValueError: Naming the file, if one is damaged.
    """
    counts: dict[str, tuple[int, int]] = {}
    for file in files:
        table = read_outcomes(file)
        for column in table.column_names[2:]:
            variant = "" if column == "prediction" else column
            right, n = counts.get(variant, (0, 0))
            hits = pc.sum(pc.equal(table[column], table["label"])).as_py() or 0
            counts[variant] = (right + hits, n + table.num_rows)
    return counts
