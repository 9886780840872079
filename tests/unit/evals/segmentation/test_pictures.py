"""Predictions over images: what is painted, which images are shown, and what cannot be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cim_bench.data.segmentation import IGNORED, SegmentationSet
from cim_bench.evals.segmentation.pictures import MOST_IN_LEGEND, Shown, _legend, _Line, draw_predictions, overlay
from cim_bench.records.predictions import class_colours, prediction_file, write_prediction
from cim_bench.spec import Data


@pytest.fixture
def images(photos_root: Path, tmp_path: Path) -> SegmentationSet:
    """Three real photographs of 64 pixels, whose left half is one class; of the right half only a part has a label."""
    root = tmp_path / "set"
    for top in ("images", "annotations"):
        (root / top / "validation").mkdir(parents=True)
    mask = Image.new("L", (64, 64), 1)
    mask.paste(2, (32, 0, 64, 64))
    mask.paste(0, (48, 48, 64, 64))
    for number, file in enumerate(sorted((photos_root / "val" / "coffee").iterdir())[:3]):
        with Image.open(file) as image:
            image.save(root / "images" / "validation" / f"{number}.png")
        mask.save(root / "annotations" / "validation" / f"{number}.png")
    (root / "classes.txt").write_text("left\nright\n")
    return SegmentationSet(Data(name="halves", root=str(root)), "validation")


def job(folder: Path, images: SegmentationSet, *, places: tuple[int, ...] = (0, 1, 2), size: int = 64) -> Shown:
    """A job that takes everything for the left class."""
    for place in places:
        mask = np.zeros((size, size), np.uint8)
        write_prediction(prediction_file(folder, images.image_id(place)), mask, "key")
    return Shown(folder.name, folder, "key")


def test_classes_are_painted_and_the_rest_is_not(images: SegmentationSet) -> None:
    image, truth = images.read(0)
    colours = class_colours(2)
    painted = overlay(image, truth.numpy(), colours)
    pixels = np.asarray(image)
    assert (painted[truth.numpy() == IGNORED] == pixels[truth.numpy() == IGNORED]).all()
    assert (painted[0, 0] == np.rint(0.4 * pixels[0, 0] + 0.6 * colours[0])).all()
    assert (painted[0, 40] == np.rint(0.4 * pixels[0, 40] + 0.6 * colours[1])).all()


def test_the_figure_has_a_line_an_image(images: SegmentationSet, tmp_path: Path) -> None:
    one, two = job(tmp_path / "one", images), job(tmp_path / "two", images, places=(1,), size=16)
    heights = []
    for jobs in ([one], [one, two]):
        draw_predictions(jobs, images, tmp_path / "new" / "seen.png")
        with Image.open(tmp_path / "new" / "seen.png") as figure:
            heights.append(figure.height)
    assert heights[0] > 2 * heights[1]  # of the second, one image alone is there


def test_the_legend_names_what_occurs() -> None:
    masks = [np.array([[0, 2, 2, IGNORED]], np.uint8), np.array([[2, 2, 3, 3]], np.uint8)]
    line = _Line("", Image.new("RGB", (4, 1)), masks)
    assert [patch.get_label() for patch in _legend([line], ["a", "b", "c", "d"])] == ["c", "d", "a"]
    assert [patch.get_label() for patch in _legend([line], ["a", "b", "c"])] == ["c", "class 3", "a"]
    many = _Line("", Image.new("RGB", (150, 1)), [np.arange(150, dtype=np.uint8)[None]])
    labels = [patch.get_label() for patch in _legend([many], [f"class {c}" for c in range(150)])]
    assert labels[0] == "class 0"
    assert labels[MOST_IN_LEGEND:] == ["and 110 more"]


def test_what_cannot_be_drawn_is_named(images: SegmentationSet, tmp_path: Path) -> None:
    shown = job(tmp_path / "one", images)
    with pytest.raises(ValueError, match=r"two keep no predicted masks of images of halves/validation"):
        draw_predictions([Shown("two", tmp_path / "two", "key")], images, tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"0\.png is not of this job"):
        draw_predictions([shown._replace(key="another")], images, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
