"""What a protocol that learns is given to score: never what it learned from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cim_bench.contracts.context import Context
from cim_bench.models.checkpoint import Meta
from cim_bench.spec import Arch, Data, Machine


def context(data: Data) -> Context:
    meta = Meta(kind="backbone", method="x", arch=Arch(), epochs=None, seed=0)
    return Context(data=data, machine=Machine(), seed=0, folder=Path("unused"), subject=meta)


def to_copy(root: Path) -> None:
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", root / "val")


def to_link(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").symlink_to("train")


def to_other_name(root: Path) -> None:
    (root / "training").symlink_to("train")


@pytest.mark.parametrize(
    ("change", "splits"),
    [
        (None, {"train_split": "val"}),
        (None, {"val_split": "train"}),
        (None, {"train_split": "."}),
        (to_other_name, {"train_split": "training", "val_split": "train"}),
        (to_copy, {}),
        (to_link, {}),
    ],
)
def test_images_that_were_learned_from_are_not_scored(
    make_photos: Callable[..., Path], tmp_path: Path, change: Callable[[Path], None] | None, splits: dict[str, str]
) -> None:
    root = make_photos(tmp_path / "images")
    if change is not None:
        change(root)
    data = Data(name="photos", root=str(root), **splits)
    assert len(context(data).scored_images()) > 0  # protocols that learn nothing may score anything
    with pytest.raises(ValueError, match=r"photos: .* are the same images, or one lies in the other, .*--data\.root"):
        context(data).val_images()


def test_a_set_without_classes_is_not_scored(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    root = make_photos(tmp_path / "images")
    for split in ("train", "val"):
        for file in sorted((root / split).rglob("*.jpg")):
            file.rename(root / split / f"{file.parent.name}-{file.name}")
    data = Data(name="photos", root=str(root))
    with pytest.raises(ValueError, match="photos has no classes to tell apart: all of its images lie in one folder"):
        context(data).val_images()


def test_other_splits_are_scored(small_photos: Data) -> None:
    assert len(context(small_photos).val_images()) == 24
    assert len(context(replace(small_photos, train_split="val", val_split="train")).val_images()) == 48
