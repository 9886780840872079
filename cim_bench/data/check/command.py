"""``cim-bench data check``: check that image sets on disk are what they should be, before a run depends on it."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cim_bench.common.progress import Meter
from cim_bench.data.check.decode import Fault, FileBatch, find_faults
from cim_bench.data.check.findings import Finding, error, fault_findings, layout_findings, ok, some, warning
from cim_bench.data.check.layouts import Layout, Split, recognise_layout
from cim_bench.data.class_list import IGNORED_LABEL, find_class_list, read_class_list
from cim_bench.data.sets import ADE20K_LABELS, IMAGENET_C_PIXELS

SAMPLES = 20  # files of each split that are opened without --deep
BATCH = 64  # files that a worker process takes at a time


@dataclass(frozen=True, kw_only=True)
class CheckedSet:
    """What a check found in one root.

    Attributes:
        root: The folder, as it was given.
        layout: The data set it was taken for, and its files; of kind ``unknown`` if it cannot be listed.
        faults: Files that are unreadable or wrong.
        findings: What holds, and what is wrong and what to do.
    """

    root: Path
    layout: Layout
    faults: tuple[Fault, ...] = ()
    findings: tuple[Finding, ...]


def check(roots: Sequence[Path], *, deep: bool, workers: int, bad_files: Path | None) -> list[CheckedSet]:
    """Check image sets: counts, classes, names, and the content of some files (of all with `deep`).

    Args:
        roots: Folders; no link or name leads the check out of them.
        deep: Decode every file.
        workers: Processes that decode with `deep`; 0 for this one.
        bad_files: Where to write the ids of images that cannot be read, one a line, as ``Data.bad_files`` takes
            them; needs `deep`.

    Returns:
        What was found in each root, in the order of the roots; a root that is given twice is checked once.

    Raises:
        ValueError: If `bad_files` is given without `deep`, or `workers` is negative.
        OSError: If `bad_files` cannot be written, or a worker process dies.
    """
    if bad_files is not None and not deep:
        raise ValueError("--bad-files needs --deep: only decoding finds every bad file")
    if workers < 0:
        raise ValueError(f"--workers is {workers}, not 0 or more")
    if bad_files is not None:
        bad_files.open("a").close()  # an hour of decoding is not for a list that cannot be written
    checked = [_check_root(root, deep=deep, workers=workers) for root in dict.fromkeys(roots)]
    return checked if bad_files is None else _write_bad_files(bad_files, checked)


def command(options: argparse.Namespace) -> int:
    """Print what `check` finds, grouped by root; 1 if any of it is an error.

    Raises:
        ValueError: If --workers or --bad-files is given without --deep.
    """
    if options.workers is not None and not options.deep:
        raise ValueError("--workers needs --deep: a few files of each split are read by one process")
    workers = (os.cpu_count() or 1) if options.workers is None else options.workers
    sets = check(options.roots, deep=options.deep, workers=workers, bad_files=options.bad_files)
    for checked in sets:
        if checked.findings:
            print(f"{checked.root}: {checked.layout.kind}")
        for level, text in checked.findings:
            print(f"  {level:7s}  {text}")
    return int(any(finding.level == "error" for checked in sets for finding in checked.findings))


def _check_root(root: Path, *, deep: bool, workers: int) -> CheckedSet:
    """List the files of a root and look into them."""
    try:
        layout = recognise_layout(root)
    except OSError as failure:
        text = f"{failure.filename} cannot be listed ({failure.strerror}): give a folder that can be read"
        return CheckedSet(root=root, layout=Layout("unknown", root), findings=(error(text),))
    batches = list(_batches(layout, deep=deep))
    looked_into = dict.fromkeys((split.name for split in layout.splits), 0)
    for batch in batches:
        looked_into[batch.split] += len(batch.images)
    with Meter(f"decode {layout.root.name}", sum(looked_into.values()), show=deep) as meter:
        faults = tuple(find_faults(batches, workers=workers if deep else 0, meter=meter))
    findings = (*layout_findings(layout), *fault_findings(layout, faults, looked_into, deep=deep))
    return CheckedSet(root=root, layout=layout, faults=faults, findings=findings)


def _batches(layout: Layout, *, deep: bool) -> Iterator[FileBatch]:
    """The files of each split in batches of equal settings."""
    pixels = IMAGENET_C_PIXELS if layout.kind == "ImageNet-C" else None
    last_label = _last_label(layout)
    masks = {split.name.removeprefix("annotations/"): split for split in layout.annotations}
    for split in layout.splits:
        partners = _partners(masks.get(split.name.removeprefix("images/")))
        names = split.images if deep else _evenly_spaced(split.images)
        for start in range(0, len(names), BATCH):
            images = names[start : start + BATCH]
            annotated = tuple(partners.get(name.rpartition(".")[0], "") for name in images)
            yield FileBatch(
                split=split.name,
                folder=str(split.path),
                images=images,
                decode=deep,
                pixels=pixels,
                annotations=annotated if partners else (),
                last_label=last_label,
                ignored=None if layout.kind == "ADE20K" else IGNORED_LABEL,  # there it tells of a mask that was shifted
            )


def _last_label(layout: Layout) -> int | None:
    """The largest label that annotations may hold, ``None`` for any."""
    if layout.kind == "ADE20K":
        return ADE20K_LABELS
    names = find_class_list(layout.root) if layout.kind == "segmentation folder" else None
    with contextlib.suppress(ValueError):  # `class_list_findings` tells what is wrong with it
        return None if names is None else len(read_class_list(names))
    return None


def _partners(masks: Split | None) -> dict[str, str]:
    """The full path of each annotation by its stem."""
    return {name.rpartition(".")[0]: str(masks.path / name) for name in masks.images} if masks else {}


def _evenly_spaced(names: tuple[str, ...]) -> tuple[str, ...]:
    """At most `SAMPLES` of some names, evenly spaced, the first and the last among them."""
    if len(names) <= SAMPLES:
        return names
    return tuple(names[place * (len(names) - 1) // (SAMPLES - 1)] for place in range(SAMPLES))


def _write_bad_files(target: Path, sets: Sequence[CheckedSet]) -> list[CheckedSet]:
    """Write the ids of unreadable images, and add to the findings which ids the list cannot hold or share.

    Returns:
        The sets with these findings.
    """
    bad = {fault.name for checked in sets for fault in checked.faults if fault.kind == "unreadable"}
    # a line break in a name, or bytes that are no text, would not come back as the same name
    listed = sorted(name for name in bad if name.isprintable())
    target.write_text("".join(f"{name}\n" for name in listed))
    return [replace(checked, findings=(*checked.findings, *_list_findings(checked, target, bad))) for checked in sets]


def _list_findings(checked: CheckedSet, target: Path, bad: set[str]) -> Iterator[Finding]:
    """Findings on one set from the list of bad files, which holds the ids of all sets."""
    own = {(fault.split, fault.name) for fault in checked.faults if fault.kind == "unreadable"}
    if own:
        yield ok(f"the unreadable images are listed in {target}")
    unlisted = {name for _, name in own if not name.isprintable()}
    if unlisted:
        yield error(f"{len(unlisted):,} names cannot stand in a list ({some(unlisted)}): rename or remove these files")
    shared = [
        f"{split.name}/{name}" for split in checked.layout.splits for name in bad.intersection(split.images)
        if (split.name, name) not in own
    ]  # fmt: skip
    if shared:
        yield warning(
            f"{len(shared):,} readable images share their id with an unreadable one of another split "
            f"({some(shared)}), and {target} leaves them out too: replace the unreadable files instead"
        )
