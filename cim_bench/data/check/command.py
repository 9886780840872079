"""``cim-bench data check``: whether image sets on disk are what they should be, before a run depends on it."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cim_bench.common.progress import Meter
from cim_bench.data.check.decode import Fault, Files, find_faults
from cim_bench.data.check.findings import Level, Remark, remarks, some
from cim_bench.data.check.layouts import Layout, Split, recognise
from cim_bench.data.sets import ADE20K_LABELS, IMAGENET_C_PIXELS

SAMPLES = 20  # files of each split that are looked into without --deep
BATCH = 64  # files a worker process takes at a time
TODO = {
    "unreadable": "replace them, or write a list with --deep --bad-files and pass it as --data.bad-files",
    "pixels": "ImageNet-C is read without resizing, as 224x224 files, so take the released ones",
    "labels": "annotations hold one label a pixel, 0 (unlabelled) to 150, so take ADEChallengeData2016's own",
}
FINE = {
    "ImageNet-C": "each can be read and has 224x224 pixels",
    "ADE20K": "each can be read and its annotation has its size and labels of 0 to 150",
    "segmentation folder": "each can be read and its annotation has its size",
}


@dataclass(frozen=True)
class Finding:
    """One sentence on one root: what holds, or what is wrong and what to do.

    Attributes:
        root: The folder, as it was given.
        kind: The data set it was taken for.
        level: ``ok``, ``warning`` (may be meant so) or ``error`` (numbers would be wrong, or a run would stop).
        text: The sentence.
    """

    root: Path
    kind: str
    level: Level
    text: str


def check(roots: Sequence[Path], *, deep: bool, workers: int, bad_files: Path | None) -> list[Finding]:
    """Look at image sets: counts, classes, names, and the inside of some files (of all with `deep`).

    Args:
        roots: Folders; no link or name leads the check out of them.
        deep: Decode every file.
        workers: Processes that decode with `deep`; 0 for this one.
        bad_files: Where to write the ids of images that cannot be read, one a line, as ``Data.bad_files`` takes
            them; needs `deep`.

    Returns:
        The findings of each root, in the order of the roots.

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
    findings: list[Finding] = []
    found: list[tuple[Path, Layout, list[Fault]]] = []
    roots = list(dict.fromkeys(roots))
    for root in roots:
        try:
            layout = recognise(root)
        except OSError as error:
            text = f"{error.filename} cannot be listed ({error.strerror}): give a folder that can be read"
            findings.append(Finding(root, "unknown", "error", text))
            continue
        findings += [Finding(root, layout.kind, *remark) for remark in remarks(layout)]
        faults = _look_inside(layout, deep=deep, workers=workers)
        findings += [Finding(root, layout.kind, *remark) for remark in _fault_remarks(layout, faults, deep=deep)]
        found.append((root, layout, faults))
    if bad_files is not None:
        findings += _write_bad_files(bad_files, found)
    return sorted(findings, key=lambda finding: roots.index(finding.root))


def command(options: argparse.Namespace) -> int:
    """Print what `check` finds, grouped by root; 1 if any of it is an error.

    Raises:
        ValueError: If --workers or --bad-files is given without --deep.
    """
    if options.workers is not None and not options.deep:
        raise ValueError("--workers needs --deep: a few files of each split are read by one process")
    workers = (os.cpu_count() or 1) if options.workers is None else options.workers
    findings = check(options.roots, deep=options.deep, workers=workers, bad_files=options.bad_files)
    header = None
    for finding in findings:
        if header != (header := f"{finding.root}: {finding.kind}"):
            print(header)
        print(f"  {finding.level:7s}  {finding.text}")
    return int(any(finding.level == "error" for finding in findings))


def _look_inside(layout: Layout, *, deep: bool, workers: int) -> list[Fault]:
    """Decode all files, or a few of each split."""
    batches = list(_batches(layout, deep=deep))
    with Meter(f"decode {layout.root.name}", sum(len(batch.images) for batch in batches), show=deep) as meter:
        return list(find_faults(batches, workers=workers if deep else 0, meter=meter))


def _batches(layout: Layout, *, deep: bool) -> Iterator[Files]:
    """The files of each split in batches of equal settings."""
    pixels = IMAGENET_C_PIXELS if layout.kind == "ImageNet-C" else None
    last_label = ADE20K_LABELS if layout.kind == "ADE20K" else None
    masks = {split.name.removeprefix("annotations/"): split for split in layout.annotations}
    for split in layout.splits:
        partners = _partners(masks.get(split.name.removeprefix("images/")))
        names = split.images if deep else _spread(split.images)
        for start in range(0, len(names), BATCH):
            images = names[start : start + BATCH]
            annotated = tuple(partners.get(name.rpartition(".")[0], "") for name in images)
            yield Files(
                split=split.name,
                folder=str(split.path),
                images=images,
                decode=deep,
                pixels=pixels,
                annotations=annotated if partners else (),
                last_label=last_label,
            )


def _partners(masks: Split | None) -> dict[str, str]:
    """The full path of each annotation by its stem."""
    return {name.rpartition(".")[0]: str(masks.path / name) for name in masks.images} if masks else {}


def _spread(names: tuple[str, ...]) -> tuple[str, ...]:
    """At most `SAMPLES` of some names, evenly spaced, the first and the last among them."""
    if len(names) <= SAMPLES:
        return names
    return tuple(names[place * (len(names) - 1) // (SAMPLES - 1)] for place in range(SAMPLES))


def _fault_remarks(layout: Layout, faults: list[Fault], *, deep: bool) -> Iterator[Remark]:
    """One sentence for each split and kind of fault."""
    totals = {split.name: len(split.images) if deep else min(SAMPLES, len(split.images)) for split in layout.splits}
    how = "decoded" if deep else "sampled"
    for (split, kind), count in Counter((fault.split, fault.kind) for fault in faults).items():
        first = next(fault for fault in faults if (fault.split, fault.kind) == (split, kind))
        where = "" if split == "." else f"{split}: "
        what = {"unreadable": "cannot be read", "pixels": "have another size", "labels": "have wrong annotations"}[kind]
        yield (
            "error",
            (
                f"{where}{count:,} of {totals[split]:,} files {how} {what}, the first is {some([first.name])} "
                f"({first.reason}): {TODO[kind]}"
            ),
        )
    total = sum(totals.values())
    if not faults and total:
        rest = "" if deep else " (--deep decodes all)"
        yield "ok", f"{total:,} files {how}, {FINE.get(layout.kind, 'each can be read')}{rest}"


def _write_bad_files(target: Path, found: list[tuple[Path, Layout, list[Fault]]]) -> Iterator[Finding]:
    """Write the ids of unreadable images; tell which cannot be listed, and which readable ones share an id."""
    bad = {fault.name for *_, faults in found for fault in faults if fault.kind == "unreadable"}
    # a line break in a name, or bytes that are no text, would not come back as the same name
    listed = sorted(name for name in bad if name.isprintable())
    target.write_text("".join(f"{name}\n" for name in listed))
    for root, layout, faults in found:
        own = {(fault.split, fault.name) for fault in faults if fault.kind == "unreadable"}
        if own:
            yield Finding(root, layout.kind, "ok", f"the unreadable images are listed in {target}")
        unlisted = {name for _, name in own if not name.isprintable()}
        if unlisted:
            text = f"{len(unlisted):,} names cannot stand in a list ({some(unlisted)}): rename or remove these files"
            yield Finding(root, layout.kind, "error", text)
        shared = [
            f"{split.name}/{name}" for split in layout.splits for name in bad.intersection(split.images)
            if (split.name, name) not in own
        ]  # fmt: skip
        if shared:
            text = (
                f"{len(shared):,} readable images share their id with an unreadable one of another split "
                f"({some(shared)}), and {target} leaves them out too: replace the unreadable files instead"
            )
            yield Finding(root, layout.kind, "warning", text)
