"""The outcome of every sample, in Parquet: what intervals, paired tests and later scores are computed from.

A job keeps ``outcomes/PART.parquet``: columns ``id`` and ``label``, and a column of predicted labels for each set of
facets, which are kept with the column as JSON. An answer is right where it equals the label.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cim_bench.common.files import write_atomic
from cim_bench.common.hashing import stable_hash
from cim_bench.records.facets import FacetKey, Facets, check_facets, column_name, facet_key
from cim_bench.records.record import ProtocolInfo
from cim_bench.records.upgrade import column_facets

Labels: TypeAlias = NDArray[np.int64]

OUTCOMES = "outcomes"
KEYS = ("id", "label")
_FACETS = b"facets"  # of a Parquet field's metadata
_JOB, _CONTENT = b"job", b"content"  # of the file's: the job's key, and a hash of names and values of all columns


class Count(NamedTuple):
    """How many of `n` images were answered right under `facets`."""

    facets: Facets
    right: int
    n: int


def outcomes_file(folder: Path, part: str) -> Path:
    """Where a job keeps the outcomes of a part."""
    return folder / OUTCOMES / f"{part}.parquet"


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


def write_outcomes(
    file: Path,
    ids: Sequence[str],
    labels: Labels,
    predictions: Iterable[tuple[Facets, Labels]],
    protocol: ProtocolInfo,
    key: str = "",
) -> None:
    """Write the outcomes of one part, whole or not at all.

    Args:
        file: As of `outcomes_file`.
        ids: (N,) image ids.
        labels: (N,)
        predictions: (N,) predicted labels by facets.
        protocol: What answered; its settings tell how columns are called.
        key: The job's, which `check_kept` asks for.

    Raises:
        ValueError: If facets are unknown, or two of them would share a column.
        OSError: Naming the file, if it cannot be written.
    """
    columns = [pa.array(ids, pa.string()), pa.array(labels, pa.int64())]
    fields = [pa.field(KEYS[0], pa.string()), pa.field(KEYS[1], pa.int64())]
    taken: dict[str, object] = {name: name for name in KEYS}
    for facets, values in predictions:
        check_facets(facets)
        name = column_name(facets, protocol.settings)
        if name in taken:
            raise ValueError(f"facets {dict(facets)} and {taken[name]} are both called {name!r}; make them differ more")
        taken[name] = dict(facets)
        columns.append(pa.array(values, pa.int64()))
        fields.append(pa.field(name, pa.int64(), metadata={_FACETS: json.dumps(dict(facets), allow_nan=False)}))
    table = pa.table(columns, schema=pa.schema(fields))
    memory = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_JOB: key, _CONTENT: _content(table)}), memory)
    write_atomic(file, memory.getvalue())


def check_kept(file: Path, key: str, ids: Sequence[str], labels: Sequence[int] | None) -> None:
    """Check the outcomes of a part that an earlier run of a job kept, before they are counted.

    Args:
        file: The part's.
        key: The job's.
        ids: Of the part's images, in order.
        labels: Of the part's images; ``None`` where they cannot be told without decoding.

    Raises:
        ValueError: Naming the file, if it is damaged, of other images or labels, another job's, or was changed.
    """
    table = read_outcomes(file)
    told = table.schema.metadata or {}
    remedy = "delete it and run again"
    if table[KEYS[0]].to_pylist() != list(ids):  # parts cut otherwise would count images twice, or never
        raise ValueError(f"{file} holds other images than this part's {len(ids)}; {remedy}")
    if labels is not None and table[KEYS[1]].to_pylist() != list(labels):
        raise ValueError(f"{file} holds other labels than the set; {remedy}")
    if told.get(_JOB, b"").decode() != key:
        raise ValueError(f"{file} is not of this job; {remedy}")
    if told.get(_CONTENT, b"").decode() != _content(table):
        raise ValueError(f"{file} was changed after it was written; {remedy}")


def _content(table: pa.Table) -> str:
    return stable_hash([table.column_names, *(column.to_pylist() for column in table.columns)])


def read_outcomes(file: Path) -> pa.Table:
    """One part's outcomes.

    Raises:
        ValueError: Naming the file, if it is damaged, or does not hold outcomes.
    """
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{file} is damaged ({reason}); delete it and run the same command again") from error
    if lacking := [name for name in KEYS if name not in table.column_names]:
        raise ValueError(f"{file} has no column {' and '.join(lacking)}; it does not hold outcomes")
    for name in table.column_names:
        if name != KEYS[0] and table.schema.field(name).type != pa.int64():
            raise ValueError(f"{file}: column {name!r} does not hold whole numbers (int64); it does not hold outcomes")
    return table


def facets_by_column(table: pa.Table, protocol: ProtocolInfo) -> dict[str, Facets]:
    """The facets of each column of predictions.

    Args:
        table: As of `read_outcomes`.
        protocol: What answered: version 0.1.0 kept names alone, which mean something together with it.
    """
    found: dict[str, Facets] = {}
    for field in table.schema:
        if field.name not in KEYS:
            kept = (field.metadata or {}).get(_FACETS)
            found[field.name] = (
                json.loads(kept) if kept else column_facets(field.name, protocol.evaluator, protocol.settings)
            )
    return found


def constant_answers(files: Iterable[Path], protocol: ProtocolInfo) -> str:
    """That all images got one answer though their labels differ, as one sentence; empty if none of them did so.

    Raises:
        ValueError: Naming the file, if one is damaged.
    """
    ranges: dict[FacetKey, set[int]] = {}
    labels: dict[FacetKey, set[int]] = {}
    for file in files:
        table = read_outcomes(file)
        for column, facets in facets_by_column(table, protocol).items():
            ranges.setdefault(facet_key(facets), set()).update(pc.min_max(table[column]).as_py().values())
            labels.setdefault(facet_key(facets), set()).update(pc.min_max(table[KEYS[1]]).as_py().values())
    odd = [facets for facets, found in ranges.items() if len(found) == 1 and len(labels[facets]) > 1]
    names = [column_name(dict(facets), protocol.settings) for facets in odd if len(odd) < len(ranges)]
    under = f" under {', '.join(names[:4])}{' and others' if len(names) > 4 else ''}" if names else ""
    return f"all images got the same answer{under}: the model does not tell them apart" if odd else ""


def tally(files: Iterable[Path], protocol: ProtocolInfo) -> list[Count]:
    """Right answers and number of images by facets, over all parts, in the order in which they are first met.

    Raises:
        ValueError: Naming the file, if one is damaged.
    """
    counts: dict[FacetKey, Count] = {}
    for file in files:
        table = read_outcomes(file)
        for column, facets in facets_by_column(table, protocol).items():
            hits = pc.sum(pc.equal(table[column], table[KEYS[1]])).as_py() or 0
            _, right, n = counts.get(facet_key(facets), Count({}, 0, 0))
            counts[facet_key(facets)] = Count(facets, right + hits, n + table.num_rows)
    return list(counts.values())
