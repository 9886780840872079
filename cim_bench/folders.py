"""Names of folders, whether they can be written, and errors as one sentence."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cim_bench.record import RECORDS_FILE, read_records


def is_finished(folder: Path) -> bool:
    """True where a job left its records."""
    file = folder / RECORDS_FILE
    return file.exists() and all(r.measurement is not None for r in read_records(file))


def is_main() -> bool:
    """True in the one process that writes."""
    return os.environ.get("RANK", "0") == "0"


def safe_name(name: str) -> str:
    """A name as one folder name: nothing in it leads out of its parent.

    Raises:
        ValueError: If nothing usable is left of the name.
    """
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip(".")
    if not safe:
        raise ValueError(f"{name!r} cannot name a folder; use letters and digits")
    return safe


def check_writable(folder: Path) -> None:
    """Fail before any work is done if results could not be kept.

    Raises:
        OSError: Naming the folder.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write to the output folder {folder}: {error.strerror}; choose another with --output"
        ) from error


def one_sentence(error: BaseException) -> str:
    """An error as one line; of one that crossed from a loader worker, its own words alone."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if not error.filename else f"{error.filename}: {error.strerror}"
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    known = isinstance(error, ValueError | OSError | ArithmeticError)
    return " ".join((text if known and text else f"{type(error).__name__}: {text}").split())
