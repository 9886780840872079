"""Real segmentation sets: three scenes of ADE20K, CamVid's streets and LabelMe's façades."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cim_bench.data.images import ImageError
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.data.transforms import to_uint8
from cim_bench.evals.segmentation.transforms import SegmentationTrain, bounded_size, resize_to_bound
from cim_bench.spec import Data

pytestmark = pytest.mark.data


def test_scenes_of_ade20k(test_data: Path) -> None:
    images = SegmentationSet(Data(name="ade20k", root=str(test_data / "ade20k-sample")), "validation")
    assert [images.image_id(i) for i in range(3)] == [f"ADE_val_0000000{i}.jpg" for i in (1, 2, 3)]
    assert len(images.classes) == len(set(images.classes)) == 150
    assert images.classes[:3] == ("wall", "building", "sky")
    found = {images.classes[label] for label in images.read(0)[1].unique().tolist() if label != 255}
    assert {"building", "sky", "tree", "road"} <= found
    for index in range(3):
        image, mask = images.read(index)
        assert image.size == mask.shape[::-1]
        resized = resize_to_bound(to_uint8(image), (2048, 512))
        assert resized.shape[1:] == bounded_size(*mask.shape, (2048, 512))
        torch.manual_seed(index)
        made = SegmentationTrain()(image, mask)
        assert set(made["mask"].unique().tolist()) <= {*mask.unique().tolist(), 255}
        assert made["image"].shape == (3, 512, 512)


@pytest.mark.parametrize(("name", "counts"), [("facade-ade", (100, 150)), ("camvid-ade", (367, 101))])
def test_every_image_of_a_set_can_be_read(test_data: Path, tmp_path: Path, name: str, counts: tuple[int, int]) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(f"class {number}" for number in range(11)))
    given = str(names) if name == "camvid-ade" else None
    data = Data(name=name, root=str(test_data / name), class_list=given)
    for split, count in zip(("train", "val"), counts, strict=True):
        images = SegmentationSet(data, split)
        assert len(images) == count
        seen: set[int] = set()
        for index in range(0, count, 5):
            image, mask = images.read(index)
            assert image.size == mask.shape[::-1]
            seen |= set(mask.unique().tolist())
        assert seen - {255} <= set(range(len(images.classes)))
        assert len(seen) > len(images.classes) / 2


def test_a_class_list_that_is_too_short_is_found(test_data: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    data = Data(name="camvid", root=str(test_data / "camvid-ade"), class_list=str(tmp_path / "classes.txt"))
    with pytest.raises(ImageError, match="and the class list names 3 classes"):
        SegmentationSet(data, "val").read(0)
