from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cim_bench.data.images import ImageError, ImageSet
from cim_bench.data.readers import find_split
from cim_bench.spec import Data

CLASSES = ("astronaut", "chelsea", "coffee", "rocket")


def pixels(images: ImageSet, index: int) -> bytes:
    return images.read(index)[0].tobytes()


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("val", ["val", "validation", "validate"])
def test_an_image_folder_is_read_whatever_its_validation_split_is_called(
    make_photos: Callable[..., Path], tmp_path: Path, val: str
) -> None:
    root = make_photos(tmp_path / "images", val=val)
    train, held = (ImageSet(Data(name="x", root=str(root)), split) for split in ("train", "val"))
    assert (len(train), len(held)) == (48, 24)
    assert train.classes == held.classes == CLASSES
    for index in range(len(held)):
        image, label = held.read(index)
        assert held.image_id(index) == f"{CLASSES[label]}/{index % 6:03d}.jpg"
        assert image.mode == "RGB"
        assert image.tobytes() == Image.open(root / val / held.image_id(index)).tobytes()


def test_any_other_folder_is_a_split(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    root = make_photos(tmp_path / "images", val="test")
    assert len(ImageSet(Data(name="x", root=str(root)), "test")) == 24


def test_modes_become_rgb(own_photos: Data) -> None:
    folder = Path(own_photos.root, "val", "astronaut")
    image = Image.open(folder / "000.jpg")
    image.convert("L").save(folder / "000.jpg")
    image.convert("CMYK").save(folder / "001.jpg")
    image.convert("RGBA").save(folder / "002.png")
    image.convert("P").save(folder / "003.png")
    images = ImageSet(own_photos, "val")
    assert {images.read(i)[0].mode for i in range(len(images))} == {"RGB"}


def make_tar(folder: Path, target: Path, prefix: str = "") -> None:
    with tarfile.open(target, "w") as tar:
        for file in sorted(folder.rglob("*.jpg")):
            tar.add(file, f"{prefix}{file.relative_to(folder)}")


def test_tar_files_read_like_the_folder(small_photos: Data, tmp_path: Path) -> None:
    for split, name in (("train", "train"), ("val", "validation")):
        make_tar(Path(small_photos.root, split), tmp_path / f"{name}.tar")
    for split in ("train", "val"):
        folder, tar = ImageSet(small_photos, split), ImageSet(Data(name="t", root=str(tmp_path)), split)
        assert len(tar) == len(folder)
        assert tar.classes == folder.classes
        assert [tar.image_id(i) for i in range(len(tar))] == [folder.image_id(i) for i in range(len(folder))]
        assert [tar.read(i)[1] for i in range(len(tar))] == [folder.read(i)[1] for i in range(len(folder))]
        assert all(pixels(tar, i) == pixels(folder, i) for i in range(len(tar)))
        assert tar.fingerprint == folder.fingerprint


def test_a_tar_file_can_be_read_in_loader_workers_after_this_process_read_it(
    small_photos: Data, tmp_path: Path
) -> None:
    make_tar(Path(small_photos.root, "val"), tmp_path / "val.tar")
    images = ImageSet(Data(name="t", root=str(tmp_path)), "val")
    expected = [pixels(images, i) for i in range(len(images))]
    loader = DataLoader(Bytes(images), batch_size=None, num_workers=2)
    assert list(loader) == expected


class Bytes(Dataset[bytes]):
    """Pixels as a loader's dataset."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> bytes:
        return pixels(self.images, index)


def write_shards(source: Path, target: Path, *, shards: int = 3, prefix: str = "", lose: str = "") -> list[str]:
    """WebDataset shards of an ImageFolder; returns the keys in order."""
    target.mkdir(parents=True)
    files = sorted(source.rglob("*.jpg"))
    keys: list[str] = []
    for shard in range(shards):
        with tarfile.open(target / f"{shard:06d}.tar", "w") as tar:
            for number in range(shard * len(files) // shards, (shard + 1) * len(files) // shards):
                file, key = files[number], f"{prefix}{number:04d}"
                label = str(CLASSES.index(file.parent.name)).encode()
                for suffix, content in (("jpg", file.read_bytes()), ("cls", label), ("json", b"{}")):
                    if f"{key}.{suffix}" != lose:
                        entry = tarfile.TarInfo(f"{key}.{suffix}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
                keys.append(f"{shard:06d}.tar/{key}")
    return keys


@pytest.mark.parametrize("prefix", ["", "./", "v1.0/part/"])
def test_webdataset_shards_read_like_the_folder(small_photos: Data, tmp_path: Path, prefix: str) -> None:
    keys = write_shards(Path(small_photos.root, "val"), tmp_path / "val", prefix=prefix)
    folder, shards = ImageSet(small_photos, "val"), ImageSet(Data(name="w", root=f"wds/{tmp_path}"), "val")
    assert len(shards) == 24
    assert [shards.image_id(i) for i in range(24)] == keys
    assert shards.classes == ("0", "1", "2", "3")
    assert [shards.read(i)[1] for i in range(24)] == [folder.read(i)[1] for i in range(24)]
    assert all(pixels(shards, i) == pixels(folder, i) for i in range(24))


def test_a_shard_without_a_label_is_refused(small_photos: Data, tmp_path: Path) -> None:
    write_shards(Path(small_photos.root, "val"), tmp_path / "val", lose="0003.cls")
    with pytest.raises(ValueError, match=r"000000\.tar: 1 images have no \.cls label, the first is 0003"):
        ImageSet(Data(name="w", root=f"wds/{tmp_path}"), "val")


def test_a_shard_whose_label_is_no_number_is_refused(small_photos: Data, tmp_path: Path) -> None:
    write_shards(Path(small_photos.root, "val"), tmp_path / "val")
    shard = tmp_path / "val" / "000001.tar"
    shard.write_bytes(shard.read_bytes().replace(b"\n", b" ").replace(b"1" + b"\0" * 511, b"x" + b"\0" * 511))
    with pytest.raises(ValueError, match=r"cannot read .*/000001\.tar: invalid literal"):
        ImageSet(Data(name="w", root=f"wds/{tmp_path}"), "val")


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_damaged_shard_or_tar_file_is_named(small_photos: Data, tmp_path: Path, size: int) -> None:
    write_shards(Path(small_photos.root, "val"), tmp_path / "val")
    os.truncate(tmp_path / "val" / "000002.tar", size)
    with pytest.raises(ValueError, match=r"cannot read .*/000002\.tar: "):
        ImageSet(Data(name="w", root=f"wds/{tmp_path}"), "val")
    make_tar(Path(small_photos.root, "val"), tmp_path / "test.tar")
    os.truncate(tmp_path / "test.tar", size)
    with pytest.raises(ValueError, match=r"test\.tar holds no image: "):
        ImageSet(Data(name="t", root=str(tmp_path)), "test")


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match=r"val holds no \*\.tar shard"):
        ImageSet(Data(name="w", root=f"wds/{tmp_path}"), "val")


def test_a_torchvision_set_is_read_and_never_downloaded(small_photos: Data, tmp_path: Path) -> None:
    """Real photographs in MNIST's own file format, which torchvision takes without a checksum."""
    source = ImageSet(small_photos, "val")
    grey = [np.asarray(source.read(i)[0].convert("L").resize((28, 28))) for i in range(len(source))]
    labels = bytes(source.read(i)[1] for i in range(len(source)))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    header = struct.pack(">iiii", 2051, 24, 28, 28)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + np.stack(grey).tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, 24) + labels)
    images = ImageSet(Data(name="mnist", root="torch/mnist", cache=str(tmp_path)), "test")
    assert len(images) == 24
    assert len(images.classes) == 10
    assert images.image_id(5) == "mnist/test/5"
    image, label = images.read(7)
    assert (image.mode, label) == ("RGB", source.read(7)[1])
    assert np.array_equal(np.asarray(image)[..., 0], grey[7])
    assert len(images.fingerprint) == 64
    with pytest.raises(ValueError, match="torchvision set 'cifar10' is not below"):
        ImageSet(Data(name="c", root="torch/cifar10", cache=str(tmp_path)), "test")
    with pytest.raises(ValueError, match="torchvision set 'nothing' is not below"):
        ImageSet(Data(name="c", root="torch/nothing", cache=str(tmp_path)), "test")


def test_the_photographs_of_the_demo(photos_root: Path) -> None:
    images = ImageSet(Data(name="photos", root="photos"), "val")
    assert len(images.classes) == 18
    assert len(images) == 18 * 25
    assert images.read(0)[0].tobytes() == Image.open(photos_root / "val" / images.image_id(0)).convert("RGB").tobytes()


def test_a_missing_split_names_every_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no split 'val'") as caught:
        find_split(tmp_path, "val")
    text = str(caught.value)
    for name in ("val", "val.tar", "validation", "validation.tar", "validate", "validate.tar"):
        assert name in text
    assert f"in {tmp_path}, which has none of them" in text
    assert "--data.root" in text
    with pytest.raises(ValueError, match=r"looked for test, test\.tar in .*nowhere, which does not exist"):
        ImageSet(Data(name="x", root=str(tmp_path / "nowhere")), "test")


def test_an_empty_split_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "val" / "coffee").mkdir(parents=True)
    with pytest.raises(ValueError, match=str(tmp_path)) as caught:
        ImageSet(Data(name="x", root=str(tmp_path)), "val")
    assert "\n" not in str(caught.value)


def test_a_truncated_image_is_named(own_photos: Data) -> None:
    images = ImageSet(own_photos, "val")
    truncate(Path(own_photos.root, "val", "chelsea", "002.jpg"))
    with pytest.raises(ImageError, match=r"cannot read image chelsea/002\.jpg of small/val: .*--data\.bad-files"):
        images.read(8)
    assert images.read(7)[1] == 1


def test_a_truncated_image_is_named_through_a_loader_worker(own_photos: Data) -> None:
    truncate(Path(own_photos.root, "val", "coffee", "001.jpg"))
    with pytest.raises(ImageError, match=r"cannot read image coffee/001\.jpg of small/val"):
        list(DataLoader(Bytes(ImageSet(own_photos, "val")), batch_size=None, num_workers=1))


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"]
)
def test_a_file_that_is_no_image_is_named(own_photos: Data, content: bytes) -> None:
    Path(own_photos.root, "val", "rocket", "005.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=r"rocket/005\.jpg"):
        ImageSet(own_photos, "val").read(23)


def test_a_file_that_vanished_is_named(own_photos: Data) -> None:
    images = ImageSet(own_photos, "val")
    Path(own_photos.root, "val", "rocket", "005.jpg").unlink()
    with pytest.raises(ImageError, match=r"rocket/005\.jpg"):
        images.read(23)


class OneFile:
    """A reader of one blob."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __getitem__(self, _: int) -> tuple[io.BytesIO, int]:
        return io.BytesIO(self.content), 0

    def filename(self, _: int) -> str:
        return "blob"


@settings(max_examples=100)
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.data(), st.sampled_from(["jpeg", "png", "webp", "tiff", "gif", "bmp"]))
def test_damage_ends_in_an_image_or_in_an_error_that_names_it(
    small_photos: Data, data: st.DataObject, kind: str
) -> None:
    images = ImageSet(small_photos, "val")
    buffer = io.BytesIO()
    images.read(0)[0].save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(200, len(content) - 1)))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    images.reader = OneFile(bytes(content))
    try:
        image, _ = images.read(0)
    except ImageError as error:
        assert "blob" in str(error)  # noqa: PT017
    else:
        assert image.mode == "RGB"


def test_bad_files_are_left_out_and_move_the_fingerprint(own_photos: Data, tmp_path: Path) -> None:
    odd = Path(own_photos.root, "val", "coffee", "a name with spaces.jpg")
    shutil.copy(odd.with_name("000.jpg"), odd)
    bad = tmp_path / "bad.txt"
    bad.write_text("chelsea/002.jpg\n\nrocket/000.jpg\r\ncoffee/a name with spaces.jpg\nnot/there.jpg\n")
    whole, rest = ImageSet(own_photos, "val"), ImageSet(replace(own_photos, bad_files=str(bad)), "val")
    assert (len(whole), len(rest)) == (25, 22)
    left = {rest.image_id(i) for i in range(len(rest))}
    gone = {whole.image_id(i) for i in range(len(whole))} - left
    assert gone == {"chelsea/002.jpg", "rocket/000.jpg", "coffee/a name with spaces.jpg"}
    assert rest.classes == whole.classes
    assert rest.fingerprint != whole.fingerprint
    for index in range(len(rest)):
        assert rest.read(index)[1] == CLASSES.index(rest.image_id(index).partition("/")[0])


def test_a_set_with_nothing_but_bad_files_is_refused(own_photos: Data, tmp_path: Path) -> None:
    whole = ImageSet(own_photos, "val")
    (tmp_path / "bad.txt").write_text("\n".join(whole.image_id(i) for i in range(len(whole))))
    with pytest.raises(ValueError, match="split 'val' holds no image"):
        ImageSet(replace(own_photos, bad_files=str(tmp_path / "bad.txt")), "val")


def test_the_fingerprint_moves_with_size_label_name_and_count(own_photos: Data) -> None:
    val = Path(own_photos.root, "val")
    seen = [ImageSet(own_photos, "val").fingerprint]
    assert ImageSet(own_photos, "val").fingerprint == seen[0]
    assert ImageSet(replace(own_photos, name="other"), "val").fingerprint == seen[0]

    with (val / "coffee" / "000.jpg").open("ab") as file:  # size
        file.write(b"\0")
    seen.append(ImageSet(own_photos, "val").fingerprint)
    (val / "coffee" / "000.jpg").rename(val / "rocket" / "000a.jpg")  # label
    seen.append(ImageSet(own_photos, "val").fingerprint)
    (val / "rocket" / "000a.jpg").rename(val / "rocket" / "000b.jpg")  # name
    seen.append(ImageSet(own_photos, "val").fingerprint)
    (val / "rocket" / "000b.jpg").unlink()  # count
    seen.append(ImageSet(own_photos, "val").fingerprint)
    (val / "coffee").rename(val / "tea")  # class name
    seen.append(ImageSet(own_photos, "val").fingerprint)
    assert len(set(seen)) == len(seen)
    assert ImageSet(own_photos, "train").fingerprint not in seen


def test_the_fingerprint_does_not_depend_on_where_the_images_lie(
    small_photos: Data, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    copy = Data(name="copy", root=str(make_photos(tmp_path / "elsewhere", val="validation")))
    assert ImageSet(copy, "val").fingerprint == ImageSet(small_photos, "val").fingerprint


def test_the_fingerprint_of_shards_moves_with_a_label(small_photos: Data, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(Path(small_photos.root, "val"), source)
    write_shards(source, tmp_path / "one" / "val")
    (source / "coffee" / "000.jpg").rename(source / "chelsea" / "999.jpg")
    write_shards(source, tmp_path / "two" / "val")
    prints = {ImageSet(Data(name="w", root=f"wds/{tmp_path / name}"), "val").fingerprint for name in ("one", "two")}
    assert len(prints) == 2


def test_reading_leaves_torch_generators_alone(small_photos: Data) -> None:
    before = torch.get_rng_state()
    ImageSet(small_photos, "val").read(0)
    assert torch.equal(before, torch.get_rng_state())
