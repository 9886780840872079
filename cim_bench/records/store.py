"""Records on disk: ``records.jsonl`` in the folder of the job that made them, written once and never edited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from cim_bench.common.files import write_atomic
from cim_bench.records.record import Record

RECORDS_FILE = "records.jsonl"
PARTIAL = "partial"  # folder of the records of a subset, below the job's own


def is_finished(folder: Path, key: str) -> bool:
    """True where a job left its records.

    Args:
        folder: The job's, or that of its subset below it.
        key: The job's.

    Raises:
        ValueError: Naming the file, if it is damaged or holds records of another job.
    """
    file = folder / RECORDS_FILE
    found = list(read_records(file)) if file.exists() else []
    if other := next((record.key for record in found if record.key != key), ""):
        raise ValueError(f"{file} holds records of another job ({other[:12]}); move it away and run again")
    return bool(found) and all(record.measurement is not None for record in found)


def write_records(folder: Path, records: Iterable[Record]) -> None:
    """Write a finished job's records to ``folder/records.jsonl``, atomically."""
    write_atomic(folder / RECORDS_FILE, "".join(record.to_json() + "\n" for record in records))


def read_records(path: Path) -> Iterator[Record]:
    """Records of one file, or of every ``records.jsonl`` below a folder, in sorted order.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: Naming file and line, if a line is not a record.
    """
    if not path.exists():
        raise FileNotFoundError(f"no records at {path}; give a file or folder that `cim-bench run` has written")
    for file in [path] if path.is_file() else sorted(path.rglob(RECORDS_FILE)):
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            try:
                yield Record.from_json(line.decode())
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: {error}; delete the file and run its job again") from error


def read_runs(path: Path, problems: list[str] | None = None) -> list[tuple[Record, Path]]:
    """Records of one file, or of every job below a folder in sorted order, each with its job's folder.

    An unfinished job keeps what it has in ``partial/records.jsonl``. Once ``records.jsonl`` is beside that folder,
    the job is complete and the partial records are left out.

    Args:
        path: The file or folder.
        problems: Gets a sentence for each damaged file, whose records are all left out; without it, one is an error.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: Naming file and line, if a line is not a record.
    """
    found: list[tuple[Record, Path]] = []
    for file in sorted(path.rglob(RECORDS_FILE)) if path.is_dir() else [path]:
        folder = file.parent
        if folder.name == PARTIAL:
            folder = folder.parent
            whole = folder / RECORDS_FILE
            if whole.exists() and whole.stat().st_size:
                continue
        try:
            found.extend([(record, folder) for record in read_records(file)])
        except ValueError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return found
