"""Corrupted copies on disk: the published layout, one decoding, nothing done twice, the same after a kill."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import shutil
import signal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cim_bench.common.seeds import sample_seed
from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import EvalTransform
from cim_bench.evals.corruptions.generate import corrupt_as_released
from cim_bench.evals.corruptions.write import write_corrupted
from cim_bench.spec import Data, Machine
from tests.processes import wait_until

KINDS, LEVELS = ("shot_noise", "fog", "pixelate"), (1, 4)


def run(images: ImageSet, out: Path, **changes: Any) -> int:
    settings: dict[str, Any] = {
        "corruptions": KINDS,
        "severities": LEVELS,
        "size": 48,
        "crop_pct": 0.875,
        "seed": 3,
        "machine": Machine(device="cpu", workers=0),
    }
    return write_corrupted(images, out, **(settings | changes))


def content(out: Path) -> dict[str, str]:
    """Hash of every file but the manifest, by name."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def images(small_photos: Data) -> ImageSet:
    """24 real photographs of four classes."""
    return ImageSet(small_photos, "val")


def test_layout_and_pixels(images: ImageSet, tmp_path: Path) -> None:
    assert run(images, tmp_path) == 24 * 6 == len(content(tmp_path))
    assert {Path(name).parts[:2] for name in content(tmp_path)} == {(k, str(s)) for k in KINDS for s in LEVELS}
    image, label = images.read(5)
    name = f"{images.classes[label]}/{Path(images.image_id(5)).stem}"
    seeds = torch.tensor([sample_seed(3, images.image_id(5))])
    expected = corrupt_as_released(EvalTransform(48, 0.875)(image)[None], "shot_noise", 4, seeds)
    with Image.open(tmp_path / "shot_noise" / "4" / f"{name}.JPEG") as file:
        assert np.array_equal(np.asarray(file), expected[0].permute(1, 2, 0).numpy())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["seed"] == 3
    assert manifest["frost_source"] in {"published", "procedural"}
    assert manifest["variants"] == sorted(f"{k}/{s}" for k in KINDS for s in LEVELS)
    assert manifest["packages"]["torch"] == version("torch")
    assert len(ImageSet(Data(name="c", root=str(tmp_path / "fog")), "4")) == 24  # what the shifts' evaluators read


def test_each_image_is_decoded_once_and_not_at_all_when_done(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    read = images.read
    monkeypatch.setattr(images, "read", lambda index: (decoded.append(index), read(index))[1])
    run(images, tmp_path)
    assert sorted(decoded) == list(range(24))
    before = content(tmp_path)
    assert run(images, tmp_path) == 0
    assert len(decoded) == 24
    assert content(tmp_path) == before


def test_damaged_and_lost_files_are_made_again(images: ImageSet, tmp_path: Path) -> None:
    run(images, tmp_path)
    before = content(tmp_path)
    first, second, *_ = (tmp_path / name for name in sorted(before))
    first.write_bytes(first.read_bytes()[:-20])
    second.unlink()
    assert run(images, tmp_path) == 2
    assert content(tmp_path) == before


def test_workers_do_not_change_files(images: ImageSet, tmp_path: Path) -> None:
    run(images, tmp_path / "0")
    run(images, tmp_path / "2", machine=Machine(device="cpu", workers=2))
    assert content(tmp_path / "0") == content(tmp_path / "2")


def stand_still_at(number: int, images: ImageSet, out: Path) -> None:
    """Write, but for ever wait for the image of this number."""
    read = images.read

    def reading(index: int) -> Any:
        if index == number:
            signal.pause()
        return read(index)

    images.read = reading  # type: ignore[method-assign]
    run(images, out)


def test_killed_and_run_again(images: ImageSet, tmp_path: Path) -> None:
    run(images, tmp_path / "whole")
    out = tmp_path / "killed"
    process = multiprocessing.get_context("fork").Process(target=stand_still_at, args=(2, images, out))
    process.start()
    wait_until(lambda: len(list(out.rglob("*.JPEG"))) >= 5, "five files")
    process.kill()
    process.join()
    left = run(images, out)
    assert 0 < left < 24 * 6
    assert content(out) == content(tmp_path / "whole")


def test_more_corruptions_may_be_added_but_not_other_settings(images: ImageSet, tmp_path: Path) -> None:
    run(images, tmp_path, corruptions=("fog",), severities=(1,))
    assert run(images, tmp_path, corruptions=("fog", "contrast"), severities=(1, 2)) == 24 * 3
    assert json.loads((tmp_path / "manifest.json").read_text())["variants"] == [
        "contrast/1",
        "contrast/2",
        "fog/1",
        "fog/2",
    ]
    with pytest.raises(ValueError, match=r"other settings \(seed was 3, is 4\); choose another folder"):
        run(images, tmp_path, seed=4)
    with pytest.raises(ValueError, match="size was 48, is 64"):
        run(images, tmp_path, size=64)


def test_two_images_of_one_name_are_refused(small_photos: Data, tmp_path: Path) -> None:
    source = tmp_path / "images" / "val"
    shutil.copytree(Path(small_photos.root, "val"), source)
    with Image.open(source / "coffee" / "000.jpg") as image:
        image.save(source / "coffee" / "000.png")
    twins = ImageSet(dataclasses.replace(small_photos, root=str(source.parent)), "val")
    with pytest.raises(ValueError, match=r"000\.jpg and coffee/000\.png would both be written to coffee/000\.JPEG"):
        run(twins, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_names_are_refused(images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no 'spatter'; choose"):
        run(images, tmp_path, corruptions=("spatter",))
    with pytest.raises(ValueError, match="no 0; choose"):
        run(images, tmp_path, severities=(0,))
