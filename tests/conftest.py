"""Fixtures that every test may use: real photographs, a small architecture, a disk that is really full."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from cim_bench.data import fingerprint
from cim_bench.data.photos.crops import photos
from cim_bench.data.photos.mosaics import photo_mosaics
from cim_bench.spec import Arch, Data, Machine

SMALL_CLASSES = ("astronaut", "chelsea", "coffee", "rocket")
SMALL_COUNTS = {"train": 12, "val": 6}

torch.set_num_threads(1)  # the models are tiny: two threads on busy cores take six times as long
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # how long a loader stopped by an error waits for workers
# A slow machine is no fault: no example has a deadline, and drawing them may take as long as it takes.
settings.register_profile("cim-bench", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cim-bench")


@pytest.fixture(scope="session", autouse=True)
def _digests_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Digests of the images of tests are not kept in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="session")
def photos_root() -> Path:
    """The demo's photographs: ``train/CLASS/NNN.png`` and ``val/CLASS/NNN.png``, 64x64."""
    try:
        return photos()
    except ValueError as error:  # the extra is not installed
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny_arch() -> Arch:
    """A ViT of 61 thousand weights: 4x4 patches of 8 pixels."""
    return Arch(
        name="vit_tiny_patch16_224",
        image_size=32,
        options={"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
    )


@pytest.fixture(scope="session")
def cpu() -> Machine:
    """This process, no loader workers."""
    return Machine(device="cpu", workers=0, micro_batch=16)


@pytest.fixture(scope="session")
def make_photos(photos_root: Path) -> Callable[..., Path]:
    """``make_photos(folder, val="validation")`` copies a few real crops as JPEGs into an ImageFolder."""

    def make(folder: Path, *, train: str = "train", val: str = "val") -> Path:
        for split, name in (("train", train), ("val", val)):
            for label in SMALL_CLASSES:
                target = folder / name / label
                target.mkdir(parents=True)
                for source in sorted((photos_root / split / label).iterdir())[: SMALL_COUNTS[split]]:
                    with Image.open(source) as image:
                        image.save(target / f"{source.stem}.jpg", quality=95)
        return folder

    return make


@pytest.fixture(scope="session")
def small_photos(make_photos: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Data:
    """4 classes, 12 training and 6 validation JPEGs each; do not change its files."""
    return Data(name="small", root=str(make_photos(tmp_path_factory.mktemp("small") / "images")))


@pytest.fixture(scope="session")
def small_masks(photos_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """12 training and 6 validation images of the demo's segmentation set, with their masks; do not change its files."""
    root, folder = photo_mosaics(), tmp_path_factory.mktemp("masks")
    shutil.copy(root / "classes.txt", folder)
    for split, count in (("training", SMALL_COUNTS["train"]), ("validation", SMALL_COUNTS["val"])):
        for top in ("images", "annotations"):
            (folder / top / split).mkdir(parents=True)
            for source in sorted((root / top / split).iterdir())[:count]:
                shutil.copy(source, folder / top / split)
    return Data(name="masks", root=str(folder))


@pytest.fixture(scope="session")
def small_root(photos_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageFolder of four classes of the demo's own PNG files, as many of each; do not change its files."""
    folder = tmp_path_factory.mktemp("small") / "images"
    for split, count in SMALL_COUNTS.items():
        for label in ("astronaut", "chelsea", "coffee", "moon"):
            (folder / split / label).mkdir(parents=True)
            for source in sorted((photos_root / split / label).iterdir())[:count]:
                shutil.copy(source, folder / split / label)
    return folder


@pytest.fixture
def own_photos(small_photos: Data, tmp_path: Path) -> Data:
    """The same images in a folder of the test's own, whose validation split may be damaged."""
    folder = tmp_path / "images"
    shutil.copytree(Path(small_photos.root, "val"), folder / "val")
    (folder / "train").symlink_to(Path(small_photos.root, "train"))
    return Data(name="small", root=str(folder))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a tiny disk needs root")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tiny disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of larger real data sets."""
    folder = os.environ.get("CIM_BENCH_TEST_DATA", "")
    if not folder:
        pytest.skip("CIM_BENCH_TEST_DATA names no folder of real data sets")
    return Path(folder)
