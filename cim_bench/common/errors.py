"""Errors as one sentence, and those that an unreadable image raises."""

from __future__ import annotations

import struct
import tarfile

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
