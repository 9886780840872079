"""Image folders as they are found: nothing is left out unsaid, nothing counts twice, nothing hangs."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder

from cim_bench.data.folders import ImageFolderReader, _natural, check_names
from cim_bench.data.images import ImageSet
from cim_bench.data.suffixes import IMAGE_SUFFIXES
from cim_bench.spec import Data

OTHER_FORMATS = {".webp": "webp", ".gif": "gif", ".bmp": "bmp", ".tif": "tiff", ".TIFF": "tiff", ".jfif": "jpeg"}


@pytest.fixture
def val(own_photos: Data) -> Path:
    """A validation split of four classes of six images that may be damaged."""
    return Path(own_photos.root, "val")


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError, match=str(folder)) as caught:
        ImageFolderReader(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_order_and_labels_are_timms(val: Path) -> None:
    for place, name in enumerate(("10.jpg", "9.jpg", "B2.JPG", "b10.jpeg", "sub/3.jpg")):
        (val / "coffee" / name).parent.mkdir(exist_ok=True)
        shutil.copy(val / "coffee" / f"00{place}.jpg", val / "coffee" / name)
    ours, theirs = ImageFolderReader(val), ReaderImageFolder(str(val))
    assert ours.samples == theirs.samples
    assert ours.class_to_idx == theirs.class_to_idx
    assert [ours.filename(i) for i in range(len(ours))] == [theirs.filename(i) for i in range(len(theirs))]


@given(st.lists(st.text(min_size=1), unique=True))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    """timm stops at a name such as ``²``."""
    sorted(names, key=_natural)


def test_classes_that_differ_in_case_alone_have_one_order(val: Path) -> None:
    """With timm, it is that of a set of texts: another in each process."""
    shutil.copytree(val / "coffee", val / "Coffee")
    assert list(ImageFolderReader(val).class_to_idx) == ["astronaut", "chelsea", "Coffee", "coffee", "rocket"]


@pytest.mark.parametrize("target", ["..", "../..", "../coffee", "."])
def test_a_link_that_would_multiply_images_is_refused(val: Path, target: str) -> None:
    (val / "rocket" / "loop").symlink_to(target)
    text = refusal(val)
    assert "/rocket/loop" in text
    assert text.endswith("are one folder, so its images would count again and again; remove the link")


def test_a_link_to_a_folder_elsewhere_is_followed(val: Path, tmp_path: Path) -> None:
    (val / "rocket").rename(tmp_path / "rocket")
    (val / "rocket").symlink_to(tmp_path / "rocket")
    assert len(ImageFolderReader(val)) == 24


def test_what_pillow_reads_is_read(val: Path) -> None:
    for place, (suffix, kind) in enumerate(OTHER_FORMATS.items()):
        source = val / "coffee" / f"00{place}.jpg"
        with Image.open(source) as image:
            image.save(source.with_suffix(suffix), kind)
        source.unlink()
    images = ImageSet(Data(name="x", root=str(val), val_split="."), ".")
    assert len(images) == 24
    assert {images.read(i)[0].size for i in range(24)} == {(64, 64)}


@pytest.mark.parametrize("name", ["a.heic", "b.NPY", "n01440764.tar", "half.jpg.crdownload"])
def test_what_would_be_left_out_is_named(val: Path, name: str) -> None:
    (val / "coffee" / "README.txt").touch()
    (val / "coffee" / name).touch()
    assert (
        f"{val} holds files that are not read (1 {Path(name).suffix.lower()}), e.g. {val / 'coffee' / name}; "
        in refusal(val)
    )


def test_tar_files_are_no_other_way_round(val: Path, tmp_path: Path) -> None:
    def pack(name: str) -> Data:
        with tarfile.open(tmp_path / "val.tar", "w") as tar:
            for file in sorted(val.rglob("*.jpg")):
                tar.add(file, f"{file.relative_to(val)}")
            entry = tarfile.TarInfo(name)
            entry.size = (val / "coffee" / "000.jpg").stat().st_size
            tar.addfile(entry, io.BytesIO((val / "coffee" / "000.jpg").read_bytes()))
        return Data(name="t", root=str(tmp_path))

    assert len(ImageSet(pack("coffee/more.jpe"), "val")) == 25
    for name, words in (("coffee/more.heic", r"not read \(1 \.heic\)"), ("coffee/\udcff.jpg", "is not UTF-8")):
        with pytest.raises(ValueError, match=words):
            ImageSet(pack(name), "val")


def test_a_pipe_is_refused_and_nobody_waits_for_it(val: Path) -> None:
    os.mkfifo(val / "coffee" / "x.JPEG")
    assert refusal(val) == f"{val}/coffee/x.JPEG is named as an image and is a pipe or device; remove it"


def test_images_beside_class_folders_are_named(val: Path) -> None:
    shutil.copy(val / "coffee" / "000.jpg", val / "stray.jpg")
    assert f"1 images lie beside the class folders of {val}, e.g. stray.jpg, and would be a class" in refusal(val)


@pytest.mark.parametrize("place", ["coffee/\udcff.jpg", "caf\udce9/0.jpg"])
def test_a_name_that_is_not_utf8_is_named(val: Path, place: str) -> None:
    (val / place).parent.mkdir(exist_ok=True)
    shutil.copy(val / "coffee" / "000.jpg", os.fsencode(val / place))
    with pytest.raises(ValueError, match=r"the file name '.*\\udc.*' is not UTF-8, so no record can hold it; rename"):
        ImageFolderReader(val)


def test_a_name_as_long_as_names_can_be(val: Path) -> None:
    (val / "coffee" / "000.jpg").rename(val / "coffee" / f"{'x' * 251}.jpg")
    assert len(ImageFolderReader(val)) == 24


def test_a_folder_that_cannot_be_listed_is_named(val: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        ImageFolderReader(val)


def test_suffixes_of_images_are_no_others() -> None:
    check_names([f"a{suffix}" for suffix in (*IMAGE_SUFFIXES, ".txt", ".xml", "")], "x")
