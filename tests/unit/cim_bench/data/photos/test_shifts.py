"""The demo's shifted sets: deterministic, from validation crops only, and different from them as described."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cim_bench.data.images import ImageSet
from cim_bench.data.photos.shifts import PHOTO_SHIFTS, photo_shift, rendition, sketch, variation
from cim_bench.spec import Data


@pytest.fixture
def photo(photos_root: Path) -> Image.Image:
    return Image.open(photos_root / "val" / "coffee" / "003.png").convert("RGB")


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float)


@pytest.mark.parametrize("name", PHOTO_SHIFTS)
def test_one_shifted_image_for_each_validation_crop(name: str, photos_root: Path) -> None:
    images = ImageSet(Data(name=name, root=name, val_split="."), ".")
    clean = ImageSet(Data(name="photos", root="photos"), "val")
    assert [images.image_id(i) for i in range(len(images))] == [clean.image_id(i) for i in range(len(clean))]
    assert images.classes == clean.classes
    assert images.read(7)[0].size == clean.read(7)[0].size
    assert images.fingerprint != clean.fingerprint


def test_made_again_it_is_the_same_and_a_lost_file_is_made_anew(photos_root: Path, tmp_path: Path) -> None:
    shutil.copytree(photos_root, tmp_path / photos_root.name)
    one = photo_shift("photos-a", tmp_path)
    before = {file.name: file.read_bytes() for file in sorted((one / "moon").iterdir())}
    stamp = (one / "manifest.json").stat().st_mtime_ns
    assert photo_shift("photos-a", tmp_path) == one
    assert (one / "manifest.json").stat().st_mtime_ns == stamp
    (one / "moon" / "003.png").unlink()
    assert photo_shift("photos-a", tmp_path) == one
    assert {file.name: file.read_bytes() for file in sorted((one / "moon").iterdir())} == before
    with pytest.raises(ValueError, match="no shifted photographs are called 'photos-x'; choose one of photos-a"):
        photo_shift("photos-x", tmp_path)


def test_a_rendition_has_eight_levels_at_most(photo: Image.Image) -> None:
    """3 bits a channel before the colours are strengthened, which acts on each flat patch alike."""
    flat = rendition(photo, random.Random(0))
    assert len(set(flat.getdata())) <= 8**3
    assert len(set(flat.getdata())) < len(set(photo.getdata())) / 4


def test_a_sketch_is_grey_divided_by_its_blur(photo: Image.Image) -> None:
    drawn = pixels(sketch(photo, random.Random(0)))
    assert np.all(drawn[..., 0] == drawn[..., 1])
    even = Image.new("RGB", (64, 64), (90, 90, 90))
    assert np.all(pixels(sketch(even, random.Random(0))) == 255)  # nothing to draw
    edge = Image.fromarray(np.repeat(np.where(np.arange(64) < 32, 200, 40).astype(np.uint8)[None], 64, 0)).convert(
        "RGB"
    )
    row = pixels(sketch(edge, random.Random(0)))[30, :, 0]
    assert row[28] == row[0] == 255  # the bright side stays white
    assert row[32] < 120 < row[50]  # the dark side has a line at the edge, and fades


def test_a_variation_shows_a_closer_view_without_filled_corners(photo: Image.Image) -> None:
    white = Image.new("RGB", (64, 64), "white")
    for seed in range(200):
        assert pixels(variation(white, random.Random(seed))).min() == 255
    seen = [pixels(variation(photo, random.Random(seed))) for seed in (1, 2)]
    assert not np.array_equal(*seen)
