from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from cim_bench.data.images import ImageError, ImageSet
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine.inference import run_models
from cim_bench.evals.metrics import accuracy
from cim_bench.models.backbone import Backbone
from cim_bench.spec import Arch, Data, Machine
from tests.processes import in_two_processes

TRANSFORM = EvalTransform(32, 1.0)


def make_model(arch: Arch) -> Backbone:
    torch.manual_seed(0)
    model = Backbone(arch, num_classes=4).eval()
    torch.nn.init.normal_(model.net.head.weight)
    return model


@pytest.fixture(scope="module")
def model(tiny_arch: Arch) -> Backbone:
    return make_model(tiny_arch)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Indices that were decoded, in order."""
    seen: list[int] = []
    read = ImageSet.read

    def counted(self: ImageSet, index: int) -> tuple[Image.Image, int]:
        seen.append(index)
        return read(self, index)

    monkeypatch.setattr(ImageSet, "read", counted)
    return seen


@torch.no_grad()
def one_by_one(model: Callable[[Tensor], Tensor], images: ImageSet) -> tuple[Tensor, Tensor]:
    read = [images.read(i) for i in range(len(images))]
    outputs = [model(TRANSFORM(image)[None].float() / 255) for image, _ in read]
    return torch.cat(outputs), torch.tensor([label for _, label in read])


def test_the_batch_size_and_the_workers_change_nothing(small_photos: Data, model: Backbone, cpu: Machine) -> None:
    images = ImageSet(small_photos, "val")
    expected, labels = one_by_one(model, images)
    seen = set()
    for batch_size, workers in ((1, 0), (7, 0), (64, 0), (7, 2)):
        machine = replace(cpu, workers=workers)
        outputs, found = run_models({"m": model}, images, TRANSFORM, machine=machine, batch_size=batch_size)
        torch.testing.assert_close(outputs["m"], expected)
        assert torch.equal(found, labels)
        predictions = outputs["m"].argmax(dim=1)
        assert torch.equal(predictions, expected.argmax(dim=1))
        seen.add(accuracy(predictions, found))
    assert len(seen) == 1


def test_the_machines_micro_batch_is_the_largest_pass(small_photos: Data, cpu: Machine) -> None:
    sizes: list[int] = []

    def mean(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        assert batch.dtype == torch.float32
        assert 0 <= float(batch.min()) <= float(batch.max()) <= 1
        return batch.mean(dim=(1, 2, 3))

    outputs, _ = run_models(
        {"mean": mean}, ImageSet(small_photos, "val"), TRANSFORM, machine=replace(cpu, micro_batch=10)
    )
    assert sizes == [10, 10, 4]
    assert outputs["mean"].shape == (24,)


def test_several_functions_share_one_decode(
    small_photos: Data, model: Backbone, cpu: Machine, reads: list[int]
) -> None:
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "logits": model,
        "cls": lambda batch: model.feature(batch, "cls"),
        "brightness": lambda batch: batch.mean(dim=(1, 2, 3)),
    }
    images = ImageSet(small_photos, "val")
    outputs, labels = run_models(functions, images, TRANSFORM, machine=cpu, batch_size=5)
    assert reads == list(range(24))
    assert {name: tuple(o.shape) for name, o in outputs.items()} == {
        "logits": (24, 4),
        "cls": (24, 48),
        "brightness": (24,),
    }
    assert labels.tolist() == sorted([0, 1, 2, 3] * 6)
    for name, function in functions.items():
        torch.testing.assert_close(outputs[name], one_by_one(function, images)[0])


def test_outputs_come_in_the_sets_order_without_gradients(small_photos: Data, model: Backbone, cpu: Machine) -> None:
    images = ImageSet(small_photos, "train")
    outputs, _ = run_models({"x": lambda batch: batch, "m": model}, images, TRANSFORM, machine=cpu)
    assert not outputs["m"].requires_grad
    for index in (0, 17, 47):
        assert torch.equal((outputs["x"][index] * 255).round().byte(), TRANSFORM(images.read(index)[0]))


def test_half_precision_outputs_come_back_in_single(small_photos: Data, cpu: Machine) -> None:
    outputs, _ = run_models(
        {"h": lambda b: b.mean((1, 2, 3)).half()}, ImageSet(small_photos, "val"), TRANSFORM, machine=cpu
    )
    assert outputs["h"].dtype == torch.float32


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_stops_the_pass_by_name(own_photos: Data, cpu: Machine, workers: int) -> None:
    os.truncate(Path(own_photos.root, "val", "coffee", "004.jpg"), 700)
    images = ImageSet(own_photos, "val")
    with pytest.raises(ImageError, match=r"cannot read image coffee/004\.jpg of small/val"):
        run_models({"x": torch.flatten}, images, TRANSFORM, machine=replace(cpu, workers=workers))


def read_twice(rank: int, model: Backbone, data: Data, folder: Path) -> None:
    """Two passes, as two jobs of one process make them; what was read and what came out goes to a file."""
    seen: list[str] = []
    images = ImageSet(data, "val")
    read = images.read
    images.read = lambda index: (seen.append(images.image_id(index)), read(index))[1]  # type: ignore[method-assign,func-returns-value]
    machine = Machine(device="cpu", workers=0, micro_batch=5)
    rounds = [run_models({"m": model}, images, TRANSFORM, machine=machine) for _ in range(2)]
    torch.save((seen, rounds, torch.distributed.get_world_size()), folder / f"{rank}.pt")


def test_two_processes_give_what_one_gives_and_read_each_image_once(
    small_photos: Data, model: Backbone, cpu: Machine, tmp_path: Path
) -> None:
    (tmp_path / "bad.txt").write_text("rocket/005.jpg\n")
    data = replace(small_photos, bad_files=str(tmp_path / "bad.txt"))
    images = ImageSet(data, "val")
    assert len(images) == 23
    expected, labels = run_models({"m": model}, images, TRANSFORM, machine=cpu)
    in_two_processes(read_twice, model, data, tmp_path, meet=tmp_path / "meet")
    decoded: Counter[str] = Counter()
    for rank in range(2):
        seen, rounds, processes = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert processes == 2
        decoded.update(seen)
        for outputs, found in rounds:
            torch.testing.assert_close(outputs["m"], expected["m"])
            assert torch.equal(outputs["m"].argmax(1), expected["m"].argmax(1))
            assert torch.equal(found, labels)
    assert decoded == {images.image_id(index): 2 for index in range(23)}  # once a round
