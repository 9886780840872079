"""The self-test from the command line, on a classifier of real photographs; and what it finds to be wrong."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cim_bench.cli.main import main
from cim_bench.data.classes import imagenet_wnids
from cim_bench.data.images import ImageSet
from cim_bench.engine.inference import run_models
from cim_bench.evals.classes import predict
from cim_bench.evals.shifts import real_labels
from cim_bench.models.backbone import Backbone, create_net, load_backbone
from cim_bench.models.checkpoint import Meta, load_checkpoint, save_checkpoint
from cim_bench.selftest.diagnosis import better_ways, wrong_folders, wrong_order
from cim_bench.selftest.measure import SelfTestResult
from cim_bench.selftest.publications import Preparation
from cim_bench.spec import Arch, Data, Machine

CLASSES = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="module")
def classifier(tiny_arch: Arch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("classifier") / "checkpoint"
    net = create_net(tiny_arch, num_classes=4)
    meta = Meta(kind="classifier", method="toy", arch=tiny_arch, epochs=None, seed=0, classes=CLASSES)
    save_checkpoint(folder, net.state_dict(), meta)
    return folder


def measured_by_hand(folder: Path, data: Data, cpu: Machine) -> float:
    model = load_backbone(load_checkpoint(folder), what="toy")
    images = ImageSet(data, "val")
    way = Preparation(size=32, resize=36)
    found, labels = run_models({"": lambda pixels: predict(model, pixels, images.classes)}, images, way, machine=cpu)
    return float((found[""].long() == labels).float().mean())


def run(folder: Path, data: Data, *options: str) -> int:
    where = ["--data.root", data.root, "--data.name", data.name, "--machine.device", "cpu", "--machine.workers", "0"]
    return main(["selftest", str(folder), *where, *options])


def test_what_agrees_and_what_does_not(
    classifier: Path, small_photos: Data, cpu: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    own = measured_by_hand(classifier, small_photos, cpu)
    assert run(classifier, small_photos, "--expected", f"{max(own, 0.01):.4f}") == 0
    agreed = capsys.readouterr().out
    assert re.search(rf"measured +{100 * own:.2f} % \[.*\]  n=24\n", agreed)
    assert "agrees: " in agreed
    assert re.search(r"published +[\d.]+ %  --expected\n", agreed)
    assert "short side to 36 pixels (bicubic), centre crop of 32; mean 0.485" in agreed
    assert "24 in small/val: by their names NOT ImageNet-1k's validation images" in agreed
    assert "the published top-1 is of other images than these (e.g. astronaut/" in agreed
    assert run(classifier, small_photos, "--expected", "0.999", "--resize", "40", "--interpolation", "bilinear") == 1
    refused = capsys.readouterr().out
    assert "does NOT agree: -" in refused
    assert "not prepared as published, which is: short side to 36 pixels (bicubic), centre crop of 32" in refused


def test_a_part_is_told(classifier: Path, small_photos: Data, capsys: pytest.CaptureFixture[str]) -> None:
    run(classifier, small_photos, "--expected", "0.5", "--subset", "8")
    assert "8 of 24 in small/val" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ("is none of the weights whose accuracy is listed", "mae-vit-b", "--expected 0.8366")),
        (["--expected", "83.66"], ("expected", "83.66")),
        (["--published", "nosuch"], ("no publication is called 'nosuch'", "resnet50-v2")),
        (["--published", "mae-vit-b"], ("mae-vit-b is vit_base_patch16_224", "name its own publication")),
        (["--expected", "0.5", "--resize", "20"], ("resize 20 is smaller than the crop of 32",)),
        (["--nosuch", "1"], ("nosuch",)),
    ],
)
def test_one_sentence(
    options: list[str], words: tuple[str, ...], classifier: Path, small_photos: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(classifier, small_photos, *options) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words)


def test_a_backbone_is_refused(
    tiny_arch: Arch, small_photos: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = Meta(kind="backbone", method="toy", arch=tiny_arch, epochs=None, seed=0)
    save_checkpoint(tmp_path / "b", create_net(tiny_arch, num_classes=0).state_dict(), meta)
    assert run(tmp_path / "b", small_photos, "--expected", "0.5") == 1
    assert "a fine-tuned classifier was asked for" in capsys.readouterr().err


def test_the_interval_decides_by_hand() -> None:
    """Wilson's of 41,832 of 50,000 is [83.34, 83.98]; of 4,180 of 5,000 [82.55, 84.60]."""
    result = SelfTestResult(right=41_832, n=50_000, published=0.834, facts={}, notes=())
    assert result.agrees
    assert not replace(result, published=0.83).agrees
    assert replace(result, right=4_180, n=5_000, published=0.83).agrees


def test_class_order() -> None:
    labels = torch.arange(4).repeat_interleave(10)
    turned = (labels + 1) % 4
    turned[::10] = 0
    assert "37 of 40" in wrong_order(turned, labels, CLASSES)
    assert "astronaut by chelsea" in wrong_order(turned, labels, CLASSES)
    assert wrong_order(labels, labels, CLASSES) == ""
    assert wrong_order(torch.randint(0, 4, (40,)), labels, CLASSES) == ""
    assert wrong_order(turned[::10], labels[::10], CLASSES) == ""  # one image of a class is always answered alike


def test_folders_by_reals_labels(small_photos: Data, tmp_path: Path) -> None:
    """Real photographs under names of ImageNet's, in the folders of their ReaL labels and in the next ones."""
    wnids, source = imagenet_wnids(), sorted(Path(small_photos.root, "val").rglob("*.jpg"))[0]
    names = [name for n in range(1, 30) if real_labels(name := f"ILSVRC2012_val_{n:08d}.JPEG")]
    for shift in (0, 1):
        for name in names:
            folder = tmp_path / str(shift) / "val" / wnids[(real_labels(name)[0] + 7 * shift) % 1000]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    right, wrong = (ImageSet(Data(root=str(tmp_path / str(shift))), "val") for shift in (0, 1))
    assert wrong_folders(right) == ""
    assert "were sorted into wrong folders" in wrong_folders(wrong)
    assert wrong_folders(ImageSet(small_photos, "val")) == ""


class Bright(Backbone):
    """Answers 1 where the normalised image is bright: right for no other mean than its own."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((3, 1, 1), 0.5))
        self.net = lambda images: torch.stack([torch.zeros(len(images)), images.mean(dim=(1, 2, 3))], dim=1)


def test_another_normalisation_is_named(make_images: Path, cpu: Machine) -> None:
    """Grey images around 0.25, as a model trained without normalisation of its mean would split them."""
    images = ImageSet(Data(name="grey", root=str(make_images)), "val")
    told = better_ways(Bright(), images, Preparation(size=8, resize=8), torch.tensor([0, 1]), cpu)
    assert told.startswith("tried on 24 of the images, right answers: as declared 12, mean and std of ImageNet 24")
    assert told.endswith("mean and std of ImageNet is clearly better")


@pytest.fixture
def make_images(tmp_path: Path) -> Path:
    """240 grey images of two classes, between which ImageNet's mean lies and 0.5 does not."""
    from PIL import Image

    for label, grey in (("dark", 110), ("light", 121)):
        folder = tmp_path / "val" / label
        folder.mkdir(parents=True)
        for n in range(120):
            Image.new("RGB", (8, 8), (grey, grey, grey)).save(folder / f"{n:03d}.png")
    return tmp_path
