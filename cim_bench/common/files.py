"""Atomic writes, checks of output folders, and safe names for folders."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path


def safe_name(name: str) -> str:
    """A name as one folder name: nothing in it leads out of its parent.

    Raises:
        ValueError: If nothing usable is left of the name.

    Examples:
        >>> safe_name("vit_small@32,depth=2")
        'vit_small_32_depth_2'
        >>> safe_name("../secret")
        '_secret'
    """
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip(".")
    if not safe:
        raise ValueError(f"{name!r} cannot name a folder; use letters and digits")
    return safe


def check_writable(folder: Path) -> None:
    """Check that a folder can be made and written to, before any work is done.

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


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: a temporary neighbour is flushed to disk, then renamed over `path`.

    Raises:
        OSError: Naming `path`, if its folder is not writable or the disk is full; an earlier file stays.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's 0600 would hide results from colleagues
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror}; free space or choose another output folder"
        ) from error
