from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cim_bench.data.check.command import check
from cim_bench.data.images import share_images
from cim_bench.data.photos import mosaics as module
from cim_bench.data.photos.crops import photo_files
from cim_bench.data.photos.mosaics import CELLS, COUNTS, FOLDERS, SIZE, SOURCES, draw_cells, photo_mosaics
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.spec import Data

if any(importlib.util.find_spec(package) is None for package in ("skimage", "sklearn")):
    pytest.skip("needs cim-bench[photos]", allow_module_level=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_mosaics(tmp_path_factory.mktemp("mosaics"))


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_text("utf-8"))["files"]
    return found


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("split", FOLDERS)
def test_a_set_of_eight_classes_each_as_often(made: Path, split: str) -> None:
    images = SegmentationSet(Data(name="photos-seg", root=str(made)), split)
    assert len(images) == COUNTS[split]
    assert images.classes == tuple(SOURCES)
    shown = np.zeros(len(SOURCES), dtype=int)
    for index in range(len(images)):
        image, mask = images.read(index)
        assert image.size == (SIZE, SIZE)
        labels, counts = np.unique(mask.numpy(), return_counts=True)
        assert len(labels) == CELLS
        assert counts.min() > 500  # of 20,736 pixels: several patches of 16
        shown[labels] += 1
    assert shown.max() - shown.min() <= 1


def test_training_and_validation_share_no_pixel(made: Path) -> None:
    pieces: dict[str, dict[str, list[tuple[int, int, int]]]] = {split: {} for split in FOLDERS}
    for row in rows(made):
        for piece in row["pieces"]:
            place = piece["left"], piece["top"], piece["side"]
            pieces[row["split"]].setdefault(piece["class"], []).append(place)
    for name, photo in SOURCES.items():
        with Image.open(photo_files()[photo]) as image:
            width, height = image.size
        for left, top, side in pieces["train"][name] + pieces["val"][name]:
            assert 0 <= left <= width - side
            assert 0 <= top <= height - side
        for left, top, side in pieces["train"][name]:
            for x, y, _ in pieces["val"][name]:
                assert left + side <= x or top + side <= y


def test_the_mask_says_which_photograph_a_pixel_shows(made: Path) -> None:
    row = next(row for row in rows(made) if row["path"] == "images/validation/003.png")
    with Image.open(made / row["path"]) as image, Image.open(made / "annotations/validation/003.png") as labels:
        pixels, mask = np.asarray(image), np.asarray(labels)
    for piece in row["pieces"]:
        cell = mask == list(SOURCES).index(piece["class"]) + 1
        ys, xs = np.nonzero(cell)
        length = max(np.ptp(xs), np.ptp(ys)) + 1
        with Image.open(photo_files()[SOURCES[piece["class"]]]) as photo:
            left, top, side = piece["left"], piece["top"], piece["side"]
            square = photo.convert("RGB").crop((left, top, left + side, top + side))
        shown = np.asarray(square.resize((length, length), Image.Resampling.LANCZOS))
        assert np.array_equal(pixels[ys, xs], shown[ys - ys.min(), xs - xs.min()])


def test_cells_are_all_there_and_bent() -> None:
    cells = draw_cells(np.random.default_rng(0))
    assert cells.shape == (SIZE, SIZE)
    assert set(np.unique(cells)) == set(range(CELLS))
    assert np.array_equal(cells, draw_cells(np.random.default_rng(0)))


def test_a_second_build_is_byte_identical(made: Path, tmp_path: Path) -> None:
    assert hashes(photo_mosaics(tmp_path)) == hashes(made)
    assert {row["path"]: row["sha256"] for row in rows(made)}.items() <= hashes(made).items()


def test_it_is_made_once_and_again_if_damaged_or_another_recipe(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COUNTS", {"train": 2, "val": 1})
    small = photo_mosaics(tmp_path)
    assert small.name != made.name
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert photo_mosaics(tmp_path) == small
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (small / "annotations/validation/000.png").unlink()
    photo_mosaics(tmp_path)
    assert hashes(small).keys() == {path.relative_to(small).as_posix() for path in before if path.suffix}


def test_the_root_photos_seg_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIM_BENCH_CACHE", str(tmp_path))
    data = Data(name="photos-seg", root="photos-seg")
    train, val = (SegmentationSet(data, split) for split in ("train", "val"))
    assert train.root.parent == tmp_path
    assert not share_images(train, val)


def test_data_check_finds_it_in_order(made: Path) -> None:
    (checked,) = check([made], deep=True, workers=0, bad_files=None)
    assert checked.layout.kind == "segmentation folder"
    assert {finding.level for finding in checked.findings} == {"ok"}
