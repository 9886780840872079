from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from cim_bench.data.segmentation import SegmentationSet
from cim_bench.evals.segmentation.samples import SegmentationSamples
from cim_bench.evals.segmentation.transforms import SegmentationTrain
from cim_bench.spec import Data


@pytest.fixture
def images(photos_root: Path, tmp_path: Path) -> SegmentationSet:
    """Six real photographs of 64 pixels, their upper half one class and their lower half the other."""
    for top in ("images", "annotations"):
        (tmp_path / top / "training").mkdir(parents=True)
    mask = Image.new("L", (64, 64), 1)
    mask.paste(2, (0, 32, 64, 64))
    for number, file in enumerate(sorted((photos_root / "train" / "chelsea").iterdir())[:6]):
        with Image.open(file) as image:
            image.save(tmp_path / "images" / "training" / f"{number}.png")
        mask.save(tmp_path / "annotations" / "training" / f"{number}.png")
    (tmp_path / "classes.txt").write_text("upper\nlower\n")
    return SegmentationSet(Data(name="halves", root=str(tmp_path)), "train")


def test_a_sample_depends_on_seed_draw_and_index_alone(images: SegmentationSet) -> None:
    transform = SegmentationTrain(crop=48, bound=(256, 64))
    samples = SegmentationSamples(images, transform, seed=3)
    first = samples[2, 4]
    samples[0, 0]
    torch.rand(5)
    again = SegmentationSamples(images, transform, seed=3)[2, 4]
    assert set(first) == {"image", "mask", "index"}
    assert first["index"] == 4
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["mask"], again["mask"])
    for other in (samples[3, 4], SegmentationSamples(images, transform, seed=4)[2, 4]):
        assert not torch.equal(first["image"], other["image"])
    assert (len(samples), samples.image_id(4)) == (6, "4.png")
