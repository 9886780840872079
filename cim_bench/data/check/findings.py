"""Findings of a data check: what holds of an image set, what is wrong with it, and what to do; imports no torch."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from cim_bench.data.check.decode import Fault
from cim_bench.data.check.layouts import (
    FLAT_VAL,
    ROLES,
    SEVERITY_FOLDERS,
    Layout,
    Split,
    printable,
)
from cim_bench.data.class_list import CLASS_LISTS, find_class_list, read_class_list
from cim_bench.data.classes import imagenet_wnids
from cim_bench.data.sets import (
    ADE20K_LABELS,
    CLASSES,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    FULL_ADE20K,
    RELEASES,
    VALPREP,
    Release,
)

Level = Literal["ok", "warning", "error"]
FAULTS = {"unreadable": "cannot be read", "pixels": "have another size", "labels": "have wrong annotations"}
REMEDIES = {
    "unreadable": "replace them, or write a list with --deep --bad-files and pass it as --data.bad-files",
    "pixels": "ImageNet-C is read without resizing, as 224x224 files, so take the released ones",
    "labels": "annotations hold one label a pixel, 0 (unlabelled) to the last of the class list, which is 150 of "
    "ADEChallengeData2016, so take the set's own, or correct the list",
}
INTACT = {  # what is true of every file that was looked into, by kind of set
    "ImageNet-C": "each can be read and has 224x224 pixels",
    "ADE20K": "each can be read and its annotation has its size and labels of 0 to 150",
    "segmentation folder": "each can be read and its annotation has its size",
}


class Finding(NamedTuple):
    """One sentence on an image set: what holds, or what is wrong and what to do.

    Attributes:
        level: ``ok``, ``warning`` (may be intended) or ``error`` (numbers would be wrong, or a run would stop).
        text: The sentence.
    """

    level: Level
    text: str


def layout_findings(layout: Layout) -> Iterator[Finding]:
    """What the names and the numbers of files say: which splits are as released, and which are not."""
    for name in layout.skipped:
        yield _skipped(name)
    if layout.kind == "full ADE20K":
        yield error(FULL_ADE20K)
    elif layout.kind == "unknown":
        yield _unknown(layout)
    elif layout.kind in ("ADE20K", "segmentation folder"):
        yield from _segmentation(layout)
    elif layout.kind == "ImageNet-C":
        yield from _corruptions(layout)
    elif layout.kind == "image folder":
        yield from _image_folder(layout)
    else:
        yield from _released(layout)


def error(text: str, split: Split | None = None) -> Finding:
    """A finding that makes numbers wrong or stops a run."""
    return Finding("error", f"{_of(split)}{text}")


def warning(text: str, split: Split | None = None) -> Finding:
    """A finding that may be intended."""
    return Finding("warning", f"{_of(split)}{text}")


def ok(text: str, split: Split | None = None) -> Finding:
    """A finding that all is well."""
    return Finding("ok", f"{_of(split)}{text}")


def some(names: Collection[str], limit: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(printable(name) for name in sorted(names)[:limit]) + more


def _of(split: Split | None) -> str:
    return "" if split is None or split.name == "." else f"{split.name}: "


def _skipped(name: str) -> Finding:
    if name.endswith(".tar"):
        return warning(f"{name} is a tar file and was not checked: unpack it to check it")
    return warning(f"{printable(name)} is a link out of this folder and was not followed: give its target as ROOT")


def _unknown(layout: Layout) -> Finding:
    if layout.inner:
        return error(f"this folder holds image sets and is none itself: give one as ROOT ({some(layout.inner)})")
    return error(
        "no image (.png, .jpg, .webp, ...) is in this folder: give the folder that holds train/ and val/, the "
        "class folders, the corruptions of ImageNet-C, or images/ and annotations/ of ADE20K"
    )


def _tree(split: Split) -> Iterator[Finding]:
    """What is wrong with a split's files whatever the set."""
    if split.links:
        found = f"{len(split.links):,} links lead out of the root ({some(split.links)})"
        yield warning(f"{found}, and were not followed: give their targets as ROOT", split)
    if split.circles:
        found = f"{len(split.circles):,} links lead in a circle, or to a folder again ({some(split.circles)})"
        yield error(f"{found}, which stops a run: remove them", split)
    if split.unread:
        found = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(split.unread.items()))
        yield error(
            f"files that look like data are not read ({found}), which stops a run: unpack them, convert them to .png "
            "or .jpg, or move them away",
            split,
        )
    if split.empty:
        found = f"{len(split.empty):,} folders are empty ({some(split.empty)})"
        yield error(f"{found}, which shifts the labels of the classes after them: fill or remove them", split)
    deep = {name.rpartition("/")[0] for name in split.images if name.count("/") > 1}
    if deep:
        found = f"images lie deeper than in class folders ({some(deep)})"
        yield warning(f"{found} and have the innermost folder's name as their class: move them up", split)


def _counts(split: Split, release: Release) -> Iterator[Finding]:
    """Whether there are as many images as were released, in all and per class."""
    found, nearest = len(split.images), min(release.images, key=lambda count: abs(count - len(split.images)))
    odd = {name for name, count in split.classes.items() if release.per_class not in (None, count)}
    if found != nearest:
        right = " or ".join(f"{count:,}" for count in release.images)
        change = f"{nearest - found:,} are missing" if found < nearest else f"{found - nearest:,} are too many"
        yield error(f"{found:,} images instead of {right}, {change}: unpack {release.source} again", split)
    elif odd:
        wrong = f"{len(odd):,} classes do not hold {release.per_class} images each ({some(odd)})"
        yield error(f"{wrong}, so files are in wrong folders: unpack {release.source} again", split)
    else:
        classes = len(set(split.classes) - {""})
        yield ok(f"{found:,} images" + (f" in {classes:,} classes" if classes else ""), split)


def _classes(split: Split, expected: tuple[str, ...]) -> Iterator[Finding]:
    """Whether the class folders are those of the set."""
    classes = set(split.classes) - {""}
    missing, unknown = set(expected) - classes, classes - set(expected)
    if missing:
        found = f"{len(missing):,} of {len(expected):,} classes are missing ({some(missing)})"
        yield error(f"{found}, which shifts the labels of others: unpack the set again", split)
    if unknown:
        found = f"{len(unknown):,} folders are no classes of this set ({some(unknown)})"
        yield error(f"{found}, which shifts the labels of others: move them away", split)
    if "" in split.classes:
        yield error(f"{split.classes['']:,} images lie in no class folder: move or remove them", split)


def _released(layout: Layout) -> Iterator[Finding]:
    """ImageNet-1k, -A, -R, -Sketch and -V2."""
    for split in layout.splits:
        role = ""
        if layout.kind == "ImageNet-1k":
            role = ROLES.get(split.name) or ROLES.get(layout.root.name, "val")
        if layout.kind == "ImageNet-1k" and split.name == "test":
            continue  # its labels are not public: nothing reads it
        flat = [name for name in split.images if FLAT_VAL.fullmatch(name)]
        if flat:
            yield error(
                f"{len(flat):,} images (ILSVRC2012_val_*.JPEG) lie in no class folder: sort them with `cd "
                f"{shlex.quote(str(split.path))} && curl -fsSLO {VALPREP} && bash valprep.sh`, which makes the "
                "class folders and moves each image into its own",
                split,
            )
            continue
        yield from _tree(split)
        yield from _counts(split, RELEASES[layout.kind, role])
        yield from _classes(split, CLASSES[layout.kind]())
    if layout.kind == "ImageNet-V2":
        yield ok("classes are named 0 to 999, which cim-bench reads as numbers (sorted as text, 10 is before 2)")
    if layout.kind == "ImageNet-1k":
        yield from _missing_splits(layout)


def _missing_splits(layout: Layout) -> Iterator[Finding]:
    names = [*(split.name for split in layout.splits), *(name.removesuffix(".tar") for name in layout.skipped)]
    roles = {ROLES.get(name) for name in names}
    if names == ["."]:
        todo = "give the folder above" if layout.root.name in ROLES else "move them into one"
        yield warning(f"the class folders lie in ROOT itself, but cim-bench reads ROOT/train and ROOT/val: {todo}")
    elif "train" not in roles:
        yield warning("there is no train split, which pre-training, fine-tuning, probes and k-NN read: add ROOT/train")
    elif "val" not in roles:
        yield warning("there is no val split, which scores are measured on: add ROOT/val")


def _corruptions(layout: Layout) -> Iterator[Finding]:
    """ImageNet-C: one finding for all folders that share it, since there are 75."""
    held = {(split.path.parent.name, split.path.name) for split in layout.splits}
    for group, names in CORRUPTIONS.items():
        missing = [
            f"{name}/{severity}" for name in names for severity in SEVERITY_FOLDERS if (name, severity) not in held
        ]
        if missing:
            found = (
                f"{group} lacks {len(missing)} of its {len(names) * len(SEVERITY_FOLDERS)} folders ({some(missing)})"
            )
            yield error(f"{found}: unpack {group}.tar from zenodo.org/records/2235448")
    shared: dict[Finding, list[str]] = {}
    for split in layout.splits:
        alone = replace(split, name=".")
        for finding in (
            *_tree(alone),
            *_counts(alone, RELEASES["ImageNet-C", ""]),
            *_classes(alone, CLASSES["ImageNet-C"]()),
        ):
            shared.setdefault(finding, []).append(split.name)
    for (level, text), places in shared.items():
        yield Finding(level, f"{len(places)} folders ({some(places)}): {text}")
    extra = {name for names in EXTRA_CORRUPTIONS.values() for name in names} & {name for name, _ in held}
    if extra:
        yield ok(f"{len(extra)} extra corruptions ({some(extra, 4)}) are there too, which are no part of mCE")


def _image_folder(layout: Layout) -> Iterator[Finding]:
    """Any other set of classes: what it holds, and whether its splits agree."""
    labelled = [split for split in layout.splits if set(split.classes) - {""}]
    for split in layout.splits:
        yield from _tree(split)
        classes = set(split.classes) - {""}
        wnids = len(classes & set(imagenet_wnids()))
        known = f" ({wnids:,} of ImageNet-1k's 1,000)" if wnids else ""
        yield ok(f"{len(split.images):,} images in {len(classes):,} classes{known}", split)
        if "" in split.classes and split in labelled:
            beside = f"{split.classes['']:,} images lie beside the class folders"
            yield error(f"{beside} and would be a class of their own: move or remove them", split)
        elif "" in split.classes:
            yield warning("no class folders, enough for pre-training but for nothing that needs labels", split)
    for split in labelled[1:]:
        apart = (set(labelled[0].classes) ^ set(split.classes)) - {""}
        if apart:
            both = f"{labelled[0].name} and {split.name} differ in {len(apart):,} classes ({some(apart)})"
            yield error(f"{both}, so one label means two classes: give both the same class folders")


def _segmentation(layout: Layout) -> Iterator[Finding]:
    """ADE20K, and other sets in its layout."""
    images = {split.path.name: split for split in layout.splits}
    annotations = {split.path.name: split for split in layout.annotations}
    needed = ("training", "validation") if layout.kind == "ADE20K" else ()
    for name in sorted({*needed, *images, *annotations}):
        for top, held in (("images", images), ("annotations", annotations)):
            if name not in held:
                yield error(f"there is no {top}/{name}: unpack ADEChallengeData2016.zip again")
                continue
            yield from _tree(held[name])
            release = RELEASES.get((layout.kind, ROLES.get(name, "")))
            if release is not None:
                yield from _counts(held[name], release)
            else:
                yield ok(f"{len(held[name].images):,} files", held[name])
        if name in images and name in annotations:
            yield from _without_partner(images[name], annotations[name])
            yield from _without_partner(annotations[name], images[name])
    yield from _class_list(layout)


def _class_list(layout: Layout) -> Iterator[Finding]:
    """Whether the names of the classes are there."""
    file = find_class_list(layout.root)
    if file is None:
        yield warning(
            f"there is no class list ({', '.join(CLASS_LISTS)}): add one, or name a file of class names as class_list"
        )
        return
    try:
        names = read_class_list(file, ADE20K_LABELS if layout.kind == "ADE20K" else None)
    except ValueError as problem:
        yield error(str(problem))
    else:
        yield ok(f"{len(names)} classes in {file.name}")


def _without_partner(split: Split, other: Split) -> Iterator[Finding]:
    """Whether each file has a partner of its stem in the other folder."""
    stems, partners = ({name.rpartition(".")[0] for name in part.images} for part in (split, other))
    if alone := stems - partners:
        found = f"{len(alone):,} files have no partner of that name in {other.name} ({some(alone)})"
        yield error(f"{found}: unpack both again", split)


def fault_findings(
    layout: Layout, faults: Sequence[Fault], looked_into: Mapping[str, int], *, deep: bool
) -> Iterator[Finding]:
    """What the content of the files says: one finding for each split and kind of fault.

    Args:
        layout: The set.
        faults: Of the files that were looked into.
        looked_into: Number of these files by name of the split.
        deep: Whether all files were decoded, or a sample of them was opened.
    """
    how = "decoded" if deep else "sampled"
    for (name, kind), count in Counter((fault.split, fault.kind) for fault in faults).items():
        first = next(fault for fault in faults if (fault.split, fault.kind) == (name, kind))
        split = next(split for split in layout.splits if split.name == name)
        yield error(
            f"{count:,} of {looked_into[name]:,} files {how} {FAULTS[kind]}, the first is {some([first.name])} "
            f"({first.reason}): {REMEDIES[kind]}",
            split,
        )
    total = sum(looked_into.values())
    if not faults and total:
        rest = "" if deep else " (--deep decodes all)"
        yield ok(f"{total:,} files {how}, {INTACT.get(layout.kind, 'each can be read')}{rest}")
