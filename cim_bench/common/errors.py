"""Errors as one sentence, those that an unreadable image raises, and work that was done in part."""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Sequence

from PIL import Image

# What Pillow and tarfile raise on damaged files.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    tarfile.TarError,
    Image.DecompressionBombError,
)


class IncompleteError(ValueError):
    """Some of what was asked for could not be made; the rest was.

    Attributes:
        made: The text of what could be made.
        problems: Why the rest could not, a sentence each.
    """

    def __init__(self, made: str, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.made, self.problems = made, tuple(problems)


def one_sentence(error: BaseException) -> str:
    """An error as one line. Of an error that a loader worker raised, the traceback is left out.

    Examples:
        >>> one_sentence(ValueError("no   such split"))
        'no such split'
        >>> one_sentence(KeyError("depth"))
        "KeyError: 'depth'"
    """
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if not error.filename else f"{error.filename}: {error.strerror}"
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    known = isinstance(error, ValueError | OSError | ArithmeticError)
    return " ".join((text if known and text else f"{type(error).__name__}: {text}").split())
