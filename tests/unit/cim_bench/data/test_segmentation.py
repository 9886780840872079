from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cim_bench.data.class_list import read_class_list
from cim_bench.data.images import ImageError, share_images
from cim_bench.data.segmentation import IGNORED, SegmentationSet, to_mask
from cim_bench.spec import Data

LABELS = np.array([[0, 1, 2, 3], [255, 3, 2, 1]], dtype=np.uint8)


def put(root: Path, name: str, labels: np.ndarray, split: str = "validation", mode: str | None = None) -> None:
    for top in ("images", "annotations"):
        (root / top / split).mkdir(parents=True, exist_ok=True)
    height, width = labels.shape[:2]
    Image.new("RGB", (width, height), (10, 20, 30)).save(root / "images" / split / f"{name}.jpg")
    mask = Image.fromarray(labels)
    (mask if mode is None else mask.convert(mode)).save(root / "annotations" / split / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    for split in ("training", "validation"):
        for number in range(3):
            put(folder, f"{split}{number}", LABELS, split)
    (folder / "classes.txt").write_text("sky\nwall\nroad\n")
    return folder


def opened(root: Path, split: str = "validation", **more: str) -> SegmentationSet:
    return SegmentationSet(Data(name="small", root=str(root), **more), split)


def test_label_0_is_ignored_and_classes_move_down_by_one() -> None:
    assert to_mask(LABELS, 3, "a.png").tolist() == [[255, 0, 1, 2], [255, 2, 1, 0]]
    full = np.arange(256).reshape(16, 16)
    full[full == 255] = 0
    assert to_mask(full, 254, "a.png").flatten().tolist() == [255, *range(254), 255]


def test_a_split_is_read_in_the_order_of_names(root: Path) -> None:
    for split in ("val", "validation"):
        images = opened(root, split)
        assert (images.name, images.split, images.classes) == ("small", split, ("sky", "wall", "road"))
        assert [images.image_id(i) for i in range(len(images))] == [f"validation{i}.jpg" for i in range(3)]
    image, mask = images.read(1)
    assert (image.mode, image.size, mask.shape, mask.dtype) == ("RGB", (4, 2), (2, 4), torch.uint8)
    assert mask.tolist() == [[255, 0, 1, 2], [255, 2, 1, 0]]
    taken = images.take([2, 0])
    assert [taken.image_id(i) for i in range(2)] == ["validation2.jpg", "validation0.jpg"]
    assert taken.fingerprint != images.fingerprint


def test_palettes_hold_labels_and_not_colours(root: Path) -> None:
    file = root / "annotations/validation/validation0.png"
    with Image.open(file) as mask:
        stored = mask.copy()
    stored.putpalette([level % 251 for level in range(768)])
    assert stored.mode == "P"
    stored.save(file)
    assert opened(root).read(0)[1].tolist() == [[255, 0, 1, 2], [255, 2, 1, 0]]


def test_the_fingerprint_covers_images_annotations_and_names(root: Path) -> None:
    first = opened(root).fingerprint
    assert opened(root, "validation").fingerprint == first
    put(root, "validation1", np.flipud(LABELS))
    second = opened(root).fingerprint
    Image.new("RGB", (4, 2), (11, 20, 30)).save(root / "images/validation/validation1.jpg")
    third = opened(root).fingerprint
    (root / "classes.txt").write_text("sky\nwall\nriver\n")
    assert len({first, second, third, opened(root).fingerprint}) == 4


def test_copies_of_the_training_split_are_found(root: Path) -> None:
    train, val = opened(root, "train"), opened(root, "val")
    assert share_images(train, train)
    assert not share_images(train, val)


def test_bad_files_are_left_out(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("validation1.jpg\n")
    images = opened(root, bad_files=str(tmp_path / "bad.txt"))
    assert [images.image_id(i) for i in range(len(images))] == ["validation0.jpg", "validation2.jpg"]


def remove(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


def write(file: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / file).write_text(text) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("annotations/validation/validation1.png"), r"1 of 3 images have no annotation .*validation1\.jpg"),
        (remove("images/validation/validation1.jpg"), r"1 of 3 annotations have no image .*validation1\.png"),
        (lambda root: shutil.rmtree(root / "annotations"), "looked for annotations/validation, annotations/val"),
        (remove("classes.txt"), "holds no class list.*class_list"),
        (write("classes.txt", "sky\n\nroad\n"), "line 2 is empty"),
        (write("classes.txt", "sky\nroad\nsky\n"), "'sky' stands there twice"),
        (write("classes.txt", ""), "names 0 classes; it must be 1 to 254"),
        (write("classes.txt", "\n".join(map(str, range(255)))), "names 255 classes; it must be 1 to 254"),
        (write("index_ade20k.pkl", "x"), "this is the full ADE20K.*ADEChallengeData2016"),
        (lambda root: put(root, "ADE_val_00000001", LABELS), "names 3 classes, and ADE20K has 150"),
        (write("annotations/validation/validation0.tif", "x"), "differ in their suffix alone"),
        (lambda root: shutil.rmtree(root), "no folder .* for the set small"),
    ],
)  # fmt: skip
def test_a_damaged_set_is_refused_in_one_sentence(root: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(root)
    with pytest.raises(ValueError, match=message) as caught:
        opened(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "mode", "message"),
    [
        (np.full((2, 4), 4, dtype=np.uint8), None, r"holds label 4, and the class list names 3 classes"),
        (np.full((2, 4), 254, dtype=np.uint8), None, r"holds label 254"),
        (np.full((2, 4), 300, dtype=np.uint16), None, r"holds label 300"),
        (LABELS, "RGB", r"has colours \(mode RGB\), not one label a pixel"),
        (LABELS, "LA", r"has colours \(mode LA\)"),
        (LABELS.repeat(2, axis=0), None, "is 4x4 pixels, its image 4x2"),
    ],
)
def test_a_wrong_annotation_is_named(root: Path, labels: np.ndarray, mode: str | None, message: str) -> None:
    put(root, "validation1", labels, mode=mode)
    if labels.shape != (2, 4):
        Image.new("RGB", (4, 2)).save(root / "images/validation/validation1.jpg")
    images = opened(root)
    images.read(0)
    with pytest.raises(ImageError, match=message) as caught:
        images.read(1)
    assert "annotations/validation/validation1.png of small" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["images/validation/validation1.jpg", "annotations/validation/validation1.png"])
def test_a_file_that_cannot_be_decoded_is_named(root: Path, file: str) -> None:
    (root / file).write_bytes((root / file).read_bytes()[:40])
    with pytest.raises(ImageError, match=rf"cannot read .*{file} of small/val: .*bad_files"):
        opened(root, "val").read(1)


def test_a_given_class_list_takes_the_place_of_the_roots(root: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    assert opened(root, class_list=str(tmp_path / "names.txt")).classes == ("a", "b", "c", "d")
    with pytest.raises(ValueError, match=r"class list .*gone\.txt cannot be read"):
        opened(root, class_list=str(tmp_path / "gone.txt"))


@pytest.mark.parametrize("separators", [(",", ";"), ("\t", ", ")])
def test_a_class_of_ade20ks_table_is_called_by_its_first_synonym_of_its_own(
    tmp_path: Path, separators: tuple[str, str]
) -> None:
    column, synonym = separators
    names = [("building", "edifice"), ("screen", "door"), ("screen", "silver"), ("sky",)]
    rows = [["Idx", "Ratio", "Train", "Val", "Stuff", "Name"]]
    rows += [[str(i), "0.1", "2", "3", "1", synonym.join(name)] for i, name in enumerate(names, start=1)]
    file = tmp_path / "objectInfo150.txt"
    file.write_text("\n".join(column.join(row) for row in rows) + "\n")
    assert read_class_list(file) == ("building", f"screen{synonym}door", f"screen{synonym}silver", "sky")
    file.write_text(file.read_text().replace("\n3", "\n5"))
    with pytest.raises(ValueError, match="no columns Idx and Name with the labels 1, 2, 3"):
        read_class_list(file)


def test_ignored_is_no_class() -> None:
    assert IGNORED == 255
