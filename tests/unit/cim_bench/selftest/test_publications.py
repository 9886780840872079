"""Publications: prepared as torchvision and timm themselves prepare, recognised by content alone."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform
from torchvision import models
from torchvision.transforms import functional as F

from cim_bench.models.checkpoint import Meta
from cim_bench.selftest import publications as listed
from cim_bench.selftest.publications import Preparation, prepared, publications, recognise
from cim_bench.spec import Arch, FromCheckpoint

META = Meta(kind="classifier", method="MAE", arch=Arch(name="vit_base_patch16_224"), epochs=None, seed=0, hash="4163")


@pytest.fixture(scope="module")
def photo(photos_root: Path) -> Image.Image:
    """A real photograph at a size that no resize divides."""
    file = next(iter(sorted((photos_root / "val" / "chelsea").iterdir())))
    return Image.open(file).convert("RGB").resize((413, 307), Image.Resampling.BICUBIC)


def test_each_is_of_a_network_of_timms_and_known_by_something() -> None:
    found = publications()
    assert len(found) == 28
    assert len({one.known_by for one in found.values()}) == len(found)
    for one in found.values():
        assert timm.is_model(one.arch), one.name
        assert re.fullmatch(r"sha256:[0-9a-f]{8}|md5:[0-9a-f]{6}|content:[0-9a-f]{12}|timm:[\w.]+", one.known_by)
        assert 0.69 < one.top1 < 0.9
        assert one.preparation.resize > one.preparation.size


def test_figures_that_everybody_knows() -> None:
    known = publications()
    figures = {"mae-vit-b": 83.664, "deit-b": 81.846, "resnet50-v1": 76.13, "resnet50-v2": 80.858}
    assert {name: known[name].top1 for name in figures} == pytest.approx({n: f / 100 for n, f in figures.items()})


@pytest.mark.parametrize("name", ["resnet50-v1", "resnet50-v2"])
def test_torchvisions_preset_gives_the_same_pixels(name: str, photo: Image.Image) -> None:
    weights = models.ResNet50_Weights[f"IMAGENET1K_{name[-2:].upper()}"]
    preset = weights.transforms()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (preset.mean, preset.std))
    ours = publications()[name].preparation(photo).float() / 255
    assert ((preset(photo) * std + mean) - ours).abs().max() < 1e-6


@pytest.mark.parametrize("name", [one for one in publications() if publications()[one].known_by.startswith("timm:")])
def test_timms_transform_gives_the_same_pixels(name: str, photo: Image.Image) -> None:
    """By its own settings of the weights, at the 224 pixels of its table."""
    one, cfg = publications()[name], timm.get_pretrained_cfg(name)
    crop_pct = cfg.test_crop_pct if cfg.test_input_size == (3, 224, 224) and cfg.test_crop_pct else cfg.crop_pct
    theirs = create_transform((3, 224, 224), crop_pct=crop_pct, interpolation=cfg.interpolation, normalize=False)
    assert one.preparation(photo).equal(theirs(photo))
    assert (one.mean, one.std) == (tuple(cfg.mean), tuple(cfg.std))


def test_a_resize_by_hand(photo: Image.Image) -> None:
    assert prepared(224, 0.9).resize == 248
    assert prepared(224, 0.965).resize == 232
    other = F.center_crop(photo.resize((round(413 * 248 / 307) - 1, 248), Image.Resampling.BICUBIC), [224, 224])
    assert prepared(224, 0.9)(photo).equal(F.pil_to_tensor(other))
    assert not Preparation()(photo).equal(Preparation(interpolation="bilinear")(photo))


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_file_is_recognised_by_its_content_whatever_its_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resnet50-0676ba61.pth"  # the name of another one
    file.write_bytes(b"weights")
    digest = hashlib.new(kind, b"weights").hexdigest()
    own = replace(publications()["mae-vit-b"], known_by=f"{kind}:{digest[:8]}")
    monkeypatch.setattr(listed, "publications", lambda: {"other": publications()["mae-vit-l"], "own": own})
    assert recognise(FromCheckpoint(path=str(file)), META) == own
    file.write_bytes(b"weights!")
    assert recognise(FromCheckpoint(path=str(file)), META) is None


def test_a_folder_is_recognised_by_its_weights_and_hub_weights_by_their_full_name(tmp_path: Path) -> None:
    whole = replace(META, hash="4163c90c35e3f7de")
    folder = recognise(FromCheckpoint(path=str(tmp_path)), whole)
    assert folder is not None
    assert folder.name == "efficientnet-lite0"
    assert recognise(FromCheckpoint(path=str(tmp_path)), META) is None
    hub = replace(META, arch=Arch(name="deit_small_patch16_224"))
    found = recognise(FromCheckpoint(path="timm:deit_small_patch16_224"), hub)
    assert found is not None
    assert found.name == "deit_small_patch16_224.fb_in1k"
