"""Atomic writes, checks of output folders, and safe names for folders."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from cim_bench.common.hashing import stable_hash

LONGEST = 160  # letters of a folder's name: file systems allow 255, and jobs add a key, and temporary files a suffix


def safe_name(name: str) -> str:
    """A name as one folder name: nothing in it leads out of its parent. The end of a very long one becomes a hash.

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
    return safe if len(safe) <= LONGEST else f"{safe[: LONGEST - 13]}-{stable_hash(name)[:12]}"


def check_writable(folder: Path) -> None:
    """Check that a folder can be made and written to, before any work is done.

    Raises:
        OSError: Naming the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write to the output folder {folder}: {error.strerror}; choose another with --output"
        ) from error


def unfinished_writes(folder: Path) -> list[Path]:
    """What writes that were cut off left below a folder of ours: all that is hidden there."""
    return [path for path in sorted(folder.rglob(".*")) if not path.parent.name.startswith(".")]


def remove(path: Path) -> None:
    """Remove a file or folder; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


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
