"""The class list of a segmentation set; imports no torch."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

CLASS_LISTS = ("classes.txt", "objectInfo150.txt", "objectInfo150.csv")  # of a root, the first that is there
IGNORED_LABEL = 255  # of files: unlabelled, as 0 is
MOST_CLASSES = 254


def find_class_list(root: Path) -> Path | None:
    """The class list in a root, if there is one."""
    return next((root / name for name in CLASS_LISTS if (root / name).is_file()), None)


def read_class_list(file: Path, count: int | None = None) -> tuple[str, ...]:
    """Class names in label order.

    Of ADEChallengeData2016's table, a class is called by the first of its synonyms, or by all of them where two classes
    share the first ("screen").

    Args:
        file: One name a line, or ``objectInfo150.txt`` or ``.csv``.
        count: How many there must be; ``None`` for any number up to `MOST_CLASSES`.

    Raises:
        ValueError: If the file cannot be read or has another number of names, an empty or a repeated one.
    """
    try:
        lines = file.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"the class list {file} cannot be read ({error}); give a text file, one name a line"
        ) from error
    names = _table_names(file, lines) if lines and lines[0].startswith("Idx") else [line.strip() for line in lines]
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if "" in names or repeated:
        fault = f"line {names.index('') + 1} is empty" if "" in names else f"{repeated[0]!r} stands there twice"
        raise ValueError(f"the class list {file}: {fault}; give each label its own name, one a line")
    if count is not None and len(names) != count:
        raise ValueError(f"the class list {file} names {len(names)} classes, and ADE20K has {count}; give its own list")
    if not 1 <= len(names) <= MOST_CLASSES:
        raise ValueError(f"the class list {file} names {len(names)} classes; it must be 1 to {MOST_CLASSES}")
    return tuple(names)


def _table_names(file: Path, lines: list[str]) -> list[str]:
    """Class names of ``objectInfo150``."""
    rows = list(csv.DictReader(lines, delimiter="\t" if "\t" in lines[0] else ","))
    if any(row.get("Idx", "").strip() != str(place) or not row.get("Name") for place, row in enumerate(rows, start=1)):
        raise ValueError(f"the class list {file} has no columns Idx and Name with the labels 1, 2, 3, ...")
    full = [row["Name"].strip() for row in rows]
    first = [re.split("[;,]", name)[0].strip() for name in full]
    shared = Counter(first)
    return [name if shared[short] > 1 else short for name, short in zip(full, first, strict=True)]
