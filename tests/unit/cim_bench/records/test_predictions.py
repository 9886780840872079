"""Predicted masks: what is written comes back, a few images of a set are kept, colours can be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cim_bench.records.predictions import (
    KEPT,
    class_colours,
    is_shown,
    prediction_file,
    prediction_files,
    read_prediction,
    write_prediction,
)

MASK = np.array([[0, 1, 149], [254, 0, 1]], np.uint8)


def test_written_and_read(tmp_path: Path) -> None:
    file = prediction_file(tmp_path, "street/a.b.jpg")
    write_prediction(file, MASK, "the job")
    assert file == tmp_path / "predictions" / "street" / "a.b.png"
    assert list(prediction_files(tmp_path)) == [file]
    assert (read_prediction(file, "the job") == MASK).all()
    with Image.open(file) as image:
        assert (np.array(image.convert("RGB")) == class_colours(256)[MASK]).all()


@pytest.mark.parametrize("total", [1, 3, 8, 9, 101, 2000])
def test_some_images_all_over_the_set_are_kept(total: int) -> None:
    kept = [index for index in range(total) if is_shown(index, total)]
    assert len(kept) == min(total, KEPT)
    assert max(np.diff([*kept, total])) <= -(-total // KEPT)


def test_colours_can_be_told_apart() -> None:
    """Of few classes, as they are drawn; those of 150 differ."""
    few = class_colours(11).astype(int)
    assert min(np.abs(a - b).sum() for i, a in enumerate(few) for b in few[:i]) > 80
    assert len({tuple(colour) for colour in class_colours(255)}) == 255
    assert (class_colours(11) == class_colours(150)[:11]).all()


def test_other_files_are_named(tmp_path: Path) -> None:
    file = prediction_file(tmp_path, "a.jpg")
    write_prediction(file, MASK, "the job")
    with pytest.raises(ValueError, match=r"a\.png is not of this job; delete it"):
        read_prediction(file, "another")
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        read_prediction(file)
    Image.fromarray(MASK).save(file)
    with pytest.raises(ValueError, match=r"a\.png is no predicted mask of a job; move it away"):
        read_prediction(file)
