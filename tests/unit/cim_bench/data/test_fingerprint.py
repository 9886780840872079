"""The fingerprint covers every byte, is cheap the second time, and says where it is a sample's."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cim_bench.data import fingerprint as module
from cim_bench.data.fingerprint import SAMPLED, fingerprint, join_fingerprints
from cim_bench.data.images import ImageSet
from cim_bench.spec import Data


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, in which files count as settled at once."""
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(module, "SETTLED_NS", 0)
    return tmp_path / "cache" / "contents"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the bytes of each file were read."""
    counts: Counter[str] = Counter()
    real = module._digest

    def digest(source: module.Source) -> bytes:
        counts[Path(source.file).name] += 1
        return real(source)

    monkeypatch.setattr(module, "_digest", digest)
    return counts


def other_pixels(file: Path, *, offset: int = -9) -> None:
    """Change one byte of a file in place; size and, as far as users can set them, times stay."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # of a clock that ticks every few milliseconds
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


def of(root: str | Path, split: str = "val", **options: Any) -> str:
    return ImageSet(Data(name="x", root=str(root), **options), split).fingerprint


def to_tar(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w") as tar:
        for file in sorted(folder.rglob("*.*")):
            tar.add(file, file.relative_to(folder))
    return target


def test_a_folder_is_hashed_once_and_again_where_a_byte_changed(
    own_photos: Data, hashed: Counter[str], cache: Path
) -> None:
    first = of(own_photos.root)
    assert hashed.total() == 24
    hashed.clear()
    assert of(own_photos.root) == first
    assert not hashed
    other_pixels(Path(own_photos.root, "val", "coffee", "003.jpg"))
    assert of(own_photos.root) != first
    assert hashed == {"003.jpg": 1}
    assert len(list(cache.iterdir())) == 1
    assert not list(Path(own_photos.root).rglob("*contents*"))


def test_a_file_that_has_just_changed_is_hashed_again(
    own_photos: Data, hashed: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could change once more within the same tick of the file system's clock."""
    monkeypatch.setattr(module, "SETTLED_NS", 10**12)
    assert of(own_photos.root) == of(own_photos.root)
    assert hashed.total() == 2 * 24


@pytest.mark.parametrize("content", [b"", b"x", bytes(1000)])
def test_a_damaged_cache_or_none_costs_time_alone(
    content: bytes, own_photos: Data, cache: Path, hashed: Counter[str]
) -> None:
    first = of(own_photos.root)
    (file,) = cache.iterdir()
    file.write_bytes(content)
    assert of(own_photos.root) == first
    assert hashed.total() == 2 * 24
    shutil.rmtree(cache.parent)
    cache.parent.write_text("a file where the folder should be")
    assert of(own_photos.root) == first


@pytest.mark.parametrize("nested", [False, True])
def test_a_tar_file_also_in_a_tar_file(own_photos: Data, tmp_path: Path, nested: bool, hashed: Counter[str]) -> None:
    (tmp_path / "t").mkdir()
    to_tar(Path(own_photos.root, "val"), tmp_path / "t" / "val.tar")
    if nested:
        (tmp_path / "t" / "val.tar").rename(tmp_path / "in.tar")
        with tarfile.open(tmp_path / "t" / "val.tar", "w") as tar:
            tar.add(tmp_path / "in.tar", "in.tar")
    tar = tmp_path / "t" / "val.tar"
    first = of(tmp_path / "t")
    assert first == of(own_photos.root)
    hashed.clear()
    assert of(tmp_path / "t") == first
    assert not hashed
    images = ImageSet(Data(name="x", root=str(tmp_path / "t")), "val")
    content = tar.read_bytes()
    other_pixels(tar, offset=content.index(images.reader[0][0].read()) + 50)
    assert of(tmp_path / "t") != first


def test_shards(own_photos: Data, tmp_path: Path) -> None:
    folder = tmp_path / "w" / "val"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, file in enumerate(sorted(Path(own_photos.root, "val").rglob("*.jpg"))):
            for suffix, content in (("jpg", file.read_bytes()), ("cls", b"1")):
                entry = tarfile.TarInfo(f"{number:04d}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    first = of(f"wds/{tmp_path / 'w'}")
    member = ImageSet(Data(name="w", root=f"wds/{tmp_path / 'w'}"), "val").reader.samples[3][0]
    other_pixels(folder / "0.tar", offset=member.offset + 60)
    assert of(f"wds/{tmp_path / 'w'}") != first


def test_a_torchvision_set_in_memory(own_photos: Data, tmp_path: Path) -> None:
    """Real photographs in MNIST's own file format; a pixel, then a label."""
    source = ImageSet(own_photos, "val")
    grey = np.stack([np.asarray(source.read(i)[0].convert("L").resize((28, 28))) for i in range(24)])
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, 24, 28, 28) + grey.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, 24) + bytes([1] * 24))
    seen = [of("torch/mnist", "test", cache=str(tmp_path))]
    assert of("torch/mnist", "test", cache=str(tmp_path)) == seen[0]
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        other_pixels(raw / name)
        seen.append(of("torch/mnist", "test", cache=str(tmp_path)))
    assert len(set(seen)) == 3


class HuggingFace:
    """timm's reader of Hugging Face sets as far as a fingerprint sees it: rows of a table in files of a cache."""

    def __init__(self, images: ImageSet, table: Path) -> None:
        self.images, self.table, self.label = images, table, 0
        self.dataset, self.reads = self, 0
        self.cache_files = [{"filename": str(table)}]

    def filename(self, index: int) -> str:
        return self.images.image_id(index)

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        self.reads += 1
        memory = io.BytesIO()
        self.images.read(index)[0].save(memory, "png")
        return io.BytesIO(memory.getvalue()), self.label


def test_rows_of_a_table_are_read_once_until_its_file_changes(own_photos: Data, tmp_path: Path) -> None:
    table = tmp_path / "data.arrow"
    table.write_bytes(b"rows of a table")
    reader = HuggingFace(ImageSet(own_photos, "val"), table)
    first = fingerprint(reader, range(5), ("a",), None, "x")
    assert fingerprint(reader, range(5), ("a",), None, "x") == first
    assert reader.reads == 5
    other_pixels(table)
    reader.label = 1
    assert fingerprint(reader, range(5), ("a",), None, "x") != first
    assert reader.reads == 10


def test_classes_order_and_other_labels_count(small_photos: Data) -> None:
    images = ImageSet(small_photos, "val")
    seen = [images.fingerprint, images.take(range(23)).fingerprint, images.take([1, 0, *range(2, 24)]).fingerprint]
    seen.append(images.with_labels([0] * 24).fingerprint)
    renamed = images.take(range(24))
    renamed.classes = tuple(reversed(images.classes))
    seen.append(renamed.fingerprint)
    assert len(set(seen)) == 5
    assert images.take(range(24)).fingerprint == seen[0]


def test_of_a_huge_set_a_sample_is_hashed_and_all_names_and_sizes(
    own_photos: Data, hashed: Counter[str], monkeypatch: pytest.MonkeyPatch, make_photos: Callable[..., Path]
) -> None:
    monkeypatch.setattr(module, "FULL", 23)
    monkeypatch.setattr(module, "SAMPLE", 6)
    val = Path(own_photos.root, "val")
    first = of(own_photos.root)
    assert first.startswith(SAMPLED)
    assert hashed.total() == 6
    other_pixels(val / "astronaut" / "001.jpg")  # not of the sample: places 0, 4, 8, ...
    assert of(own_photos.root) == first
    seen = [first]
    other_pixels(val / "astronaut" / "000.jpg")
    seen.append(of(own_photos.root))
    with (val / "astronaut" / "001.jpg").open("ab") as file:
        file.write(b"\0")
    seen.append(of(own_photos.root))
    (val / "astronaut" / "001.jpg").rename(val / "astronaut" / "001a.jpg")
    seen.append(of(own_photos.root))
    assert len(set(seen)) == 4


def test_one_sampled_set_marks_all() -> None:
    assert not join_fingerprints(["a", "b"]).startswith(SAMPLED)
    assert join_fingerprints(["a", "sampled:b"]).startswith(SAMPLED)
    assert len({join_fingerprints(x) for x in (["a", "b"], ["b", "a"], ["ab"], ["a", "sampled:b"])}) == 4


def test_what_is_no_regular_file_is_named_and_not_waited_for(own_photos: Data) -> None:
    images = ImageSet(own_photos, "val")
    fifo = Path(own_photos.root, "val", "coffee", "003.jpg")
    fifo.unlink()
    os.mkfifo(fifo)
    with pytest.raises(ValueError, match=r"coffee/003\.jpg is not a regular file"):
        _ = images.fingerprint


def test_pixels_of_decoded_images_count(own_photos: Data) -> None:
    """A reader that decodes: mode, size and pixels."""

    class Decoded(HuggingFace):
        def __getitem__(self, index: int) -> Any:
            return Image.new("RGB", self.size, 3), 0

        size = (4, 2)

    reader = Decoded(ImageSet(own_photos, "val"), Path("none"))
    reader.cache_files = []
    one = fingerprint(reader, range(2), ("a",), None, "x")
    reader.size = (2, 4)
    assert fingerprint(reader, range(2), ("a",), None, "x") != one
