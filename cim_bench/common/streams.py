"""Standard streams as they are found, closed, broken or of another alphabet; what is said there never fails a job."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from pathlib import Path

_PLAIN = {"–": "-", "−": "-", "—": "-", "×": "x", "↑": "^", "↓": "v", "…": "~", "’": "'", "‘": "'", "“": '"', "”": '"'}
_ERRORS = "cim-bench-plain"  # name of the handler among Python's


def say(text: str) -> None:
    """Write a line to standard error, if anybody is there to read it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # a broken pipe, or a stream that was closed
            print(text, file=sys.stderr, flush=True)


def open_closed_streams() -> None:
    """Open streams that the caller closed (``2>&-``) to nowhere: the next file would take their place and lines."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


def use_plain_marks() -> None:
    """Have streams that lack a character print a plain one in its place, as wide: an ASCII terminal gets tables too."""
    codecs.register_error(_ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def leave_pipe() -> None:
    """Forget what standard output still holds, whose reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that a stream cannot encode."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_plain_mark(c) for c in error.object[error.start : error.end]), error.end


def _plain_mark(character: str) -> str:
    """One plain character for another.

    Examples:
        >>> "".join(map(_plain_mark, "58.9 ↑ é ³ – 猫"))
        '58.9 ^ e 3 - ?'
    """
    found = _PLAIN.get(character) or unicodedata.normalize("NFKD", character)[:1]
    return found if found.isascii() else "?"
