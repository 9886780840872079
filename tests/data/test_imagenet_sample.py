"""The published input sizes on 1,000 real ImageNet-class photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine.samples import Augmented
from cim_bench.pretrain.cim.method import CIM
from cim_bench.spec import Arch, Data

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def images(test_data: Path) -> ImageSet:
    return ImageSet(Data(name="imagenet-sample", root=str(test_data / "imagenet-sample")), "val")


def test_one_photograph_of_each_class_in_wnid_order(images: ImageSet) -> None:
    assert len(images) == len(images.classes) == 1000
    assert list(images.classes) == sorted(images.classes)
    assert [images.reader.samples[i][1] for i in range(1000)] == list(range(1000))


def test_published_inputs_of_real_photographs(images: ImageSet) -> None:
    samples = Augmented(images, CIM().inputs(Arch(name="vit_base_patch16_224", image_size=224)), seed=0)
    for index in range(0, 1000, 40):
        sample = samples[0, index]
        assert sample["context"].shape == (3, 160, 160)
        assert sample["exemplars"].shape == (6, 3, 64, 64)
        assert sample["exemplars"].dtype == torch.uint8
        again = samples[0, index]
        assert all(torch.equal(torch.as_tensor(sample[k]), torch.as_tensor(again[k])) for k in sample)
        assert not torch.equal(sample["context"], samples[1, index]["context"])


def test_evaluation_transform_of_real_photographs(images: ImageSet) -> None:
    transform = EvalTransform(224, 0.875)
    for index in range(0, 1000, 100):
        assert transform(images.read(index)[0]).shape == (3, 224, 224)
