import hashlib
import importlib.util
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cim_bench.data.photos import crops as module
from cim_bench.data.photos.crops import CROPS, PHOTO_CLASSES, THINGS, cache_folder, photos

COUNTS = CROPS["photos"].counts
# Of crops per class where the number does not matter: files are slow to delete.
FEW = {name: replace(crops, counts={"train": 2, "val": 1}) for name, crops in CROPS.items()}

if any(importlib.util.find_spec(package) is None for package in ("skimage", "sklearn")):
    pytest.skip("needs cim-bench[photos]", allow_module_level=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CROPS", FEW)


@pytest.fixture(scope="module")
def made_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CROPS", FEW)
        return photos(tmp_path_factory.mktemp("small"))


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return content


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_class_has_its_crops_and_nothing_else_is_there(made: Path) -> None:
    assert re.fullmatch("photos-[0-9a-f]{12}", made.name)
    assert [path.name for path in made.parent.iterdir()] == [made.name]
    assert sorted(path.name for path in made.iterdir()) == ["manifest.json", "train", "val"]
    for split, count in COUNTS.items():
        assert sorted(path.name for path in (made / split).iterdir()) == list(PHOTO_CLASSES)
        for name in PHOTO_CLASSES:
            files = sorted((made / split / name).iterdir())
            assert [path.name for path in files] == [f"{index:03d}.png" for index in range(count)]
            for path in files:
                with Image.open(path) as image:
                    assert (image.mode, image.size) == ("RGB", (64, 64))
                    assert len(set(image.tobytes())) > 8, f"{path} is blank"


def test_manifest_lists_every_file_with_its_hash(made: Path) -> None:
    listed = {row["path"]: row["sha256"] for row in manifest(made)["files"]}
    found = hashes(made)
    del found["manifest.json"]
    assert listed == found
    assert len(set(listed.values())) > 0.99 * len(listed)
    assert all(row["path"].startswith(f"{row['split']}/{row['class']}/") for row in manifest(made)["files"])


@pytest.mark.parametrize("name", PHOTO_CLASSES)
def test_training_and_validation_regions_are_disjoint_and_inside_the_photograph(made: Path, name: str) -> None:
    squares: dict[str, list[tuple[int, int, int]]] = {split: [] for split in COUNTS}
    for row in manifest(made)["files"]:
        if row["class"] == name:
            squares[row["split"]].append((row["left"], row["top"], row["side"]))
    for left, top, side in squares["train"]:
        for x, y, _ in squares["val"]:
            assert left + side <= x or top + side <= y
    with Image.open(module.photo_files()[name]) as image:
        width, height = image.size
    for left, top, side in squares["train"] + squares["val"]:
        assert 64 <= side <= 128
        assert 0 <= left <= width - side
        assert 0 <= top <= height - side


def test_a_crop_is_the_rectangle_its_row_names(made: Path) -> None:
    for row in manifest(made)["files"][::97]:
        with Image.open(module.photo_files()[row["class"]]) as source, Image.open(made / row["path"]) as crop:
            left, top, side = row["left"], row["top"], row["side"]
            square = source.convert("RGB").crop((left, top, left + side, top + side))
            assert square.resize((64, 64), Image.Resampling.LANCZOS).tobytes() == crop.tobytes()


@pytest.mark.usefixtures("small")
def test_wider_crops_for_pretraining_keep_the_same_line_between_the_splits(tmp_path: Path) -> None:
    folder = photos(tmp_path, "photos-things")
    assert re.fullmatch("photos-things-[0-9a-f]{12}", folder.name)
    assert {path.name for path in (folder / "train").iterdir()} == set(THINGS) < set(PHOTO_CLASSES)
    for row in manifest(folder)["files"]:
        with Image.open(folder / row["path"]) as crop, Image.open(module.photo_files()[row["class"]]) as source:
            region = module.split_region(row["split"], row["class"], source.size)
            assert crop.size == (64, 64)
        assert 96 <= row["side"] <= 256
        assert region[0] <= row["left"] <= region[2] - row["side"]
        assert region[1] <= row["top"] <= region[3] - row["side"]


@pytest.mark.usefixtures("small")
def test_a_second_build_is_byte_identical(made_small: Path, made: Path, tmp_path: Path) -> None:
    again = photos(tmp_path / "new" / "cache")
    assert again.name == made_small.name != made.name
    assert hashes(again) == hashes(made_small)
    crops = hashes(again)
    del crops["manifest.json"]
    assert crops.items() <= hashes(made).items()  # the first crops do not depend on how many follow


def test_a_second_call_writes_nothing_and_opens_no_image(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in [made, made.parent, *made.rglob("*")]}
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    assert photos(made.parent) == made
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "manifest.json").write_text(
            (folder / "manifest.json").read_text().replace('"side": ', '"side": 1')
        ),
        lambda folder: (folder / "val" / "coins" / "000.png").unlink(),
        lambda folder: shutil.rmtree(folder / "train"),
        lambda folder: folder.rename(folder.with_name("aside")) and folder.write_text("a file"),
    ],
    ids=["no manifest", "cut short", "other content", "changed", "file missing", "split missing", "a file"],
)
def test_a_damaged_set_is_rebuilt(made_small: Path, tmp_path: Path, damage: Any) -> None:
    folder = shutil.copytree(made_small, tmp_path / made_small.name)
    before = hashes(folder)
    damage(folder)
    shutil.rmtree(tmp_path / "aside", ignore_errors=True)
    assert photos(tmp_path) == folder
    assert hashes(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.usefixtures("small")
def test_another_recipe_gets_another_folder(made_small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CROPS_VERSION", module.CROPS_VERSION + 1)
    assert photos(tmp_path).name != made_small.name


@pytest.mark.usefixtures("small")
def test_a_concurrent_builder_that_wins_is_kept(
    made_small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner, cut = made_small, module._cut

    def late(root: Path, *of: Any) -> list[dict[str, Any]]:
        if not (tmp_path / "cache" / winner.name).exists():
            shutil.copytree(winner, tmp_path / "cache" / winner.name)
            (tmp_path / "cache" / winner.name / "mark").touch()
        return cut(root, *of)

    monkeypatch.setattr(module, "_cut", late)
    folder = photos(tmp_path / "cache")
    assert (folder / "mark").exists()
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.usefixtures("small")
def test_many_builders_at_once_leave_one_whole_set(made_small: Path, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    builders = [fork.Process(target=photos, args=(tmp_path / "cache",)) for _ in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0] * 4
    assert list((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / made_small.name]
    assert hashes(tmp_path / "cache" / made_small.name) == hashes(made_small)


@pytest.mark.usefixtures("small")
def test_the_cache_is_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CIM_BENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "cim-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "cim-bench"
    monkeypatch.setenv("CIM_BENCH_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert not cache_folder().exists()
    assert photos().parent == tmp_path / "own"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CIM_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match="cannot be written") as caught:
        photos()
    assert str(tmp_path / "file" / "cache") in str(caught.value)
    assert "set CIM_BENCH_CACHE" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["skimage", "sklearn"])
def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ValueError, match=rf"{package}'s .*: pip install 'cim-bench\[photos\]'"):
        photos(tmp_path)


def test_neither_package_is_imported() -> None:
    code = "import sys; from cim_bench.data.photos import crops as m; m.photo_files(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"skimage", "sklearn", "torch"} & set(run.stdout.split())
