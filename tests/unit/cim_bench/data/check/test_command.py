from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import pytest
from PIL import Image
from timm.data import ImageNetInfo

from cim_bench.cli.arguments import build_parser
from cim_bench.common.progress import Meter
from cim_bench.data import classes as wnids
from cim_bench.data import folders
from cim_bench.data.check import layouts
from cim_bench.data.check.command import CheckedSet, check, command
from cim_bench.data.check.decode import FileBatch, find_faults
from cim_bench.data.images import ImageSet
from cim_bench.data.sets import CORRUPTIONS, EXTRA_CORRUPTIONS, RELEASES
from cim_bench.spec import Data

ALL_CORRUPTIONS = [(group, name) for group, names in CORRUPTIONS.items() for name in names]


@pytest.fixture
def photo(photos_root: Path, tmp_path: Path) -> Path:
    """One real crop as a JPEG, on the file system of the trees that link to it."""
    with Image.open(photos_root / "val" / "coffee" / "000.png") as image:
        image.save(tmp_path / "photo.bin", "JPEG")
    return tmp_path / "photo.bin"


def grow(folder: Path, source: Path, names: Iterable[str]) -> Path:
    """Hard links to one file under many names below a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).hardlink_to(source)
    return folder


def look(*roots: Path, deep: bool = False, bad_files: Path | None = None) -> list[CheckedSet]:
    return check(roots, deep=deep, workers=0, bad_files=bad_files)


def texts(sets: list[CheckedSet], level: str | None = None) -> list[str]:
    return [finding.text for checked in sets for finding in checked.findings if level in (None, finding.level)]


def kind(sets: list[CheckedSet]) -> str:
    (name,) = {checked.layout.kind for checked in sets}
    return name


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


# --- what the tables say -----------------------------------------------------------------------------------------


def test_the_released_counts() -> None:
    counts = {place: release.images for place, release in RELEASES.items()}
    assert counts == {
        ("ImageNet-1k", "train"): (1_281_167,),
        ("ImageNet-1k", "val"): (50_000,),
        ("ImageNet-A", ""): (7_500,),
        ("ImageNet-R", ""): (30_000,),
        ("ImageNet-Sketch", ""): (50_889, 50_000),
        ("ImageNet-V2", ""): (10_000,),
        ("ImageNet-C", ""): (50_000,),
        ("ADE20K", "train"): (20_210,),
        ("ADE20K", "val"): (2_000,),
    }
    per_class = {name: release.per_class for (name, split), release in RELEASES.items() if split != "train"}
    assert {name: count for name, count in per_class.items() if count} == {
        "ImageNet-1k": 50,  # x 1,000 = 50,000
        "ImageNet-V2": 10,  # x 1,000 = 10,000
        "ImageNet-C": 50,
    }


def test_the_corruptions_are_fifteen_and_four() -> None:
    assert [len(names) for names in CORRUPTIONS.values()] == [3, 4, 4, 4]
    assert len({name for _, name in ALL_CORRUPTIONS}) == 15
    assert not {name for _, name in ALL_CORRUPTIONS} & set(*EXTRA_CORRUPTIONS.values())


def test_the_check_and_the_readers_agree_on_names() -> None:
    assert layouts.IMAGE_SUFFIXES is folders.IMAGE_SUFFIXES
    assert {".png", ".jpg", ".jpeg", ".webp"} < set(layouts.IMAGE_SUFFIXES)
    assert not layouts.UNREAD_SUFFIXES.intersection(layouts.IMAGE_SUFFIXES)


def test_wnids() -> None:
    labels = wnids.imagenet_wnids()
    assert labels == tuple(ImageNetInfo().label_names())
    assert labels == tuple(sorted(labels))
    assert (labels[0], labels[999]) == ("n01440764", "n15075141")
    ours, theirs = wnids.imagenet_a_wnids(), wnids.imagenet_r_wnids()
    assert (len(set(ours)), len(set(theirs)), len(set(ours) & set(theirs))) == (200, 200, 86)
    assert [labels.index(wnid) for wnid in ours[:5]] == [6, 11, 13, 15, 17]
    assert [labels.index(wnid) for wnid in theirs[:5]] == [1, 2, 4, 6, 8]
    assert ours == tuple(sorted(ours))


def test_a_timm_without_the_lists_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm")
    wnids._lines.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"lacks data/_info/imagenet_synsets\.txt: pip install 'timm>=1\.0\.9'"):
            wnids.imagenet_wnids()
    finally:
        wnids._lines.cache_clear()


def test_neither_the_check_nor_the_lists_import_torch_or_timm() -> None:
    code = (
        "import sys; import cim_bench.data.check.command;"
        "from cim_bench.data.classes import imagenet_wnids; imagenet_wnids();"
        "print(sorted({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- ImageNet-1k -------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_the_sample_of_imagenet_is_told_by_how_many_images_it_lacks(test_data: Path) -> None:
    sets = look(test_data / "imagenet-sample")
    assert kind(sets) == "ImageNet-1k"
    assert texts(sets, "error") == [
        "val: 1,000 images instead of 50,000, 49,000 are missing: unpack ILSVRC2012_img_val.tar again"
    ]
    assert "no train split" in texts(sets, "warning")[0]
    assert texts(sets, "ok") == ["20 files sampled, each can be read (--deep decodes all)"]


def imagenet(root: Path, photo: Path, *, val: str = "val") -> Path:
    grow(root / "train", photo, (f"{wnid}/{wnid}_1.JPEG" for wnid in wnids.imagenet_wnids()))
    return grow(
        root / val, photo, (f"{wnid}/ILSVRC2012_val_{i:08d}.JPEG" for i, wnid in enumerate(wnids.imagenet_wnids()))
    )


def test_a_val_split_with_the_right_count_in_the_wrong_folders(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    val = imagenet(tmp_path / "in", photo, val="validation")
    monkeypatch.setitem(
        RELEASES, ("ImageNet-1k", "val"), RELEASES["ImageNet-1k", "val"]._replace(images=(1000,), per_class=1)
    )
    assert "validation: 1,000 images in 1,000 classes" in texts(look(tmp_path / "in"), "ok")
    first = next((val / "n01440764").iterdir())
    first.rename(val / "n01443537" / first.name)
    found = texts(look(tmp_path / "in"), "error")
    assert any("validation: 1 classes do not hold 1 images each (n01443537)" in text for text in found)
    assert any("validation: 1 folders are empty (n01440764), which shifts the labels" in text for text in found)
    assert any("validation: 1 of 1,000 classes are missing (n01440764)" in text for text in found)


def test_a_flat_val_is_told_how_to_be_sorted(photo: Path, tmp_path: Path) -> None:
    root = tmp_path / "image net"
    grow(root / "val", photo, (f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 31)))
    grow(root / "test", photo, ["ILSVRC2012_test_00000001.JPEG"])
    sets = look(root)
    assert kind(sets) == "ImageNet-1k"
    (text,) = texts(sets, "error")
    assert "30 images (ILSVRC2012_val_*.JPEG) lie in no class folder" in text
    assert f"`cd '{root}/val' && curl -fsSLO https://" in text
    assert "bash valprep.sh`" in text


def test_a_folder_that_is_no_wnid_and_a_file_beside_the_folders(photo: Path, tmp_path: Path) -> None:
    val = imagenet(tmp_path / "in", photo)
    grow(val, photo, ["tench/1.JPEG", "stray.JPEG"])
    found = texts(look(tmp_path / "in"), "error")
    assert any("val: 1 folders are no classes of this set (tench)" in text for text in found)
    assert any("val: 1 images lie in no class folder" in text for text in found)


# --- ImageNet-A, -R, -Sketch, -V2 --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "total"), [("A", 7_500), ("R", 30_000)])
@pytest.mark.parametrize("below", ["", "val"])
def test_a_and_r_are_told_by_their_classes(photo: Path, tmp_path: Path, name: str, total: int, below: str) -> None:
    classes = {"A": wnids.imagenet_a_wnids(), "R": wnids.imagenet_r_wnids()}[name]
    place = grow(tmp_path / "set" / below, photo, (f"{wnid}/0.jpg" for wnid in classes))
    sets = look(tmp_path / "set")
    assert kind(sets) == f"ImageNet-{name}"
    (text,) = texts(sets, "error")
    assert f"200 images instead of {total:,}, {total - 200:,} are missing: unpack imagenet-{name.lower()}.tar" in text
    shutil.rmtree(place / classes[0])
    grow(place, photo, ["n00000000/0.jpg"])
    found = "\n".join(texts(look(tmp_path / "set"), "error"))
    assert f"1 of 200 classes are missing ({classes[0]})" in found
    assert "1 folders are no classes of this set (n00000000)" in found


def test_sketch_is_told_by_its_file_names(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path / "set", photo, (f"{wnid}/sketch_0.JPEG" for wnid in wnids.imagenet_wnids()))
    sets = look(tmp_path / "set")
    assert kind(sets) == "ImageNet-Sketch"
    (text,) = texts(sets, "error")
    assert text.startswith("1,000 images instead of 50,889 or 50,000, 49,000 are missing")
    for counts in ((1000, 999), (1001, 1000)):  # either is right
        monkeypatch.setitem(RELEASES, ("ImageNet-Sketch", ""), RELEASES["ImageNet-Sketch", ""]._replace(images=counts))
        assert texts(look(tmp_path / "set"))[0] == "1,000 images in 1,000 classes"


def test_v2_is_read_by_number(photo: Path, tmp_path: Path) -> None:
    grow(tmp_path / "v2" / "val", photo, (f"{label}/{i}.jpeg" for label in range(1000) for i in range(1)))
    sets = look(tmp_path / "v2")
    assert kind(sets) == "ImageNet-V2"
    assert "1,000 images instead of 10,000, 9,000 are missing" in texts(sets, "error")[0]
    assert any("cim-bench reads as numbers" in text for text in texts(sets, "ok"))
    # the statement is true of the reader
    assert ImageSet(Data(root=str(tmp_path / "v2")), "val").classes == tuple(str(label) for label in range(1000))


# --- ImageNet-C --------------------------------------------------------------------------------------------------


@pytest.fixture
def square(photo: Path) -> Path:
    with Image.open(photo) as image:
        image.resize((224, 224)).save(photo.with_name("square.bin"), "JPEG")
    return photo.with_name("square.bin")


@pytest.mark.parametrize("grouped", [True, False])
def test_corruptions_count_sizes_and_gaps(photo: Path, square: Path, tmp_path: Path, grouped: bool) -> None:
    root = tmp_path / "c"
    for (group, name), severity in product(ALL_CORRUPTIONS, range(1, 6)):
        place = f"{group}/{name}/{severity}" if grouped else f"{name}/{severity}"
        grow(root / place, square, ["n01440764/1.JPEG", "n01443537/2.JPEG"])
    sets = look(root)
    assert kind(sets) == "ImageNet-C"
    assert not [text for text in texts(sets) if "lacks" in text]
    assert any(text.startswith("75 folders") and "2 images instead of 50,000" in text for text in texts(sets))
    assert texts(sets, "ok") == ["150 files sampled, each can be read and has 224x224 pixels (--deep decodes all)"]

    frost = root / ("weather/frost" if grouped else "frost")
    shutil.rmtree(frost / "4")
    small = frost / "5" / "n01440764" / "1.JPEG"
    small.unlink()
    small.hardlink_to(photo)
    grow(root / ("extra/spatter" if grouped else "spatter"), square, ["1/n01440764/1.JPEG"])
    found = look(root, deep=True)
    assert any("weather lacks 1 of its 20 folders (frost/4): unpack weather.tar" in text for text in texts(found))
    assert any("1 extra corruptions (spatter)" in text for text in texts(found, "ok"))
    (size,) = [text for text in texts(found, "error") if "pixels)" in text]
    assert "frost/5: 1 of 2 files decoded have another size, the first is n01440764/1.JPEG (is 64x64 pixels)" in size


def test_whole_corruptions_are_as_released(square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RELEASES, ("ImageNet-C", ""), RELEASES["ImageNet-C", ""]._replace(images=(1000,), per_class=1))
    names = [f"{wnid}/1.JPEG" for wnid in wnids.imagenet_wnids()]
    for severity in "12":
        grow(tmp_path / "c" / "snow" / severity, square, names)
    assert "2 folders (snow/1, snow/2): 1,000 images in 1,000 classes" in texts(look(tmp_path / "c"), "ok")


# --- ADE20K ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ade(test_data: Path, tmp_path: Path) -> Path:
    """Three real scenes as the training and as the validation split."""
    for top, old, new in product(("images", "annotations"), ("validation",), ("training", "validation")):
        shutil.copytree(test_data / "ade20k-sample" / top / old, tmp_path / "ade" / top / new)
    return tmp_path / "ade"


@pytest.mark.data
def test_ade20k_counts(ade: Path) -> None:
    sets = look(ade, deep=True)
    assert kind(sets) == "ADE20K"
    assert texts(sets, "error") == [
        f"{top}/{split}: 3 images instead of {right}, {lack} are missing: unpack ADEChallengeData2016.zip again"
        for split, right, lack in (("training", "20,210", "20,207"), ("validation", "2,000", "1,997"))
        for top in ("images", "annotations")
    ]
    assert "6 files decoded, each can be read and its annotation has its size and labels of 0 to 150" in texts(sets)


@pytest.mark.data
def test_ade20k_labels_sizes_and_partners(ade: Path, tmp_path: Path) -> None:
    masks = sorted((ade / "annotations" / "validation").iterdir())
    with Image.open(masks[0]) as image:
        image.point(lambda label: 255 if label == 0 else label - 1).save(masks[0])  # reduced already: 0 became 255
        image.convert("RGB").save(ade / "annotations" / "training" / masks[0].name)
    with Image.open(masks[1]) as image:
        image.resize((32, 32), Image.Resampling.NEAREST).save(masks[1])
    masks[2].rename(masks[2].with_name("ADE_val_00009999.png"))
    found = "\n".join(texts(look(ade), "error"))
    assert (
        "training: 1 of 3 files sampled have wrong annotations, the first is ADE_val_00000001.jpg (has an annotation"
        in found
    )
    assert "of mode RGB, not one label a pixel" in found
    assert "images/validation: 2 of 3 files sampled have wrong annotations" in found
    assert "has an annotation with label 255" in found
    assert (
        "images/validation: 1 files have no partner of that name in annotations/validation (ADE_val_00000003)" in found
    )
    assert (
        "annotations/validation: 1 files have no partner of that name in images/validation (ADE_val_00009999)" in found
    )

    truncate(masks[1])
    look(ade, deep=True, bad_files=tmp_path / "bad.txt")
    assert (tmp_path / "bad.txt").read_text() == "ADE_val_00000002.jpg\n"


@pytest.mark.data
def test_the_layout_of_ade20k_with_other_images(test_data: Path) -> None:
    sets = look(test_data / "camvid-ade")
    assert kind(sets) == "segmentation folder"
    assert not texts(sets, "error")
    assert "images/training: 367 files" in texts(sets)
    assert "there is no class list" in texts(sets, "warning")[0]


def test_labels_of_any_segmentation_set_are_those_of_its_class_list(tmp_path: Path) -> None:
    for top in ("images", "annotations"):
        (tmp_path / top / "validation").mkdir(parents=True)
    for name, labels in (("a", (0, 1, 2, 255)), ("b", (3,))):
        Image.new("RGB", (2, 2)).save(tmp_path / "images" / "validation" / f"{name}.png")
        mask = Image.new("L", (2, 2))
        mask.putdata([labels[place % len(labels)] for place in range(4)])
        mask.save(tmp_path / "annotations" / "validation" / f"{name}.png")
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    sets = look(tmp_path)
    assert "2 classes in classes.txt" in texts(sets, "ok")
    (found,) = texts(sets, "error")
    assert "1 of 2 files sampled have wrong annotations, the first is b.png (has an annotation with label 3)" in found
    (tmp_path / "classes.txt").write_text("sky\nroad\nsky\n")
    assert "'sky' stands there twice" in texts(look(tmp_path), "error")[0]


@pytest.mark.parametrize("place", ["images/ADE/training/a/abbey", "images/training/a/abbey"])
def test_the_full_ade20k_is_refused(photo: Path, tmp_path: Path, place: str) -> None:
    grow(tmp_path / "ADE20K", photo, [f"{place}/ADE_train_1.jpg", f"{place}/ADE_train_1_seg.png"])
    sets = look(tmp_path / "ADE20K")
    (text,) = texts(sets, "error")
    assert "this is the full ADE20K" in text
    assert "ADEChallengeData2016.zip" in text


# --- any other folder --------------------------------------------------------------------------------------------


def test_an_image_folder_is_counted(small_photos: Data) -> None:
    sets = look(Path(small_photos.root))
    assert texts(sets) == texts(sets, "ok")
    assert kind(sets) == "image folder"
    assert texts(sets)[:2] == ["train: 48 images in 4 classes", "val: 24 images in 4 classes"]


def test_splits_whose_classes_differ(make_photos: Callable[..., Path], photo: Path, tmp_path: Path) -> None:
    root = make_photos(tmp_path / "images")
    grow(root / "val", photo, ["tea/0.jpg", "0.jpg"])
    (root / "val" / "empty").mkdir()
    found = "\n".join(texts(look(root), "error"))
    assert "train and val differ in 1 classes (tea)" in found
    assert "val: 1 images lie beside the class folders" in found
    assert "val: 1 folders are empty (empty)" in found


def test_images_that_are_deep_flat_or_not_read(photo: Path, tmp_path: Path) -> None:
    grow(tmp_path / "set" / "train", photo, ["cat/images/0.jpg", "cat/1.npy", "dog.zip", "README.md"])
    grow(tmp_path / "set" / "val", photo, ["0.jpg"])
    (tmp_path / "set" / "test.tar").touch()
    (tmp_path / "set" / "validation.tar").touch()
    sets = look(tmp_path / "set")
    found = "\n".join(texts(sets, "warning"))
    assert "train: images lie deeper than in class folders (cat/images)" in found
    assert "train: files that look like data are not read (1 .npy, 1 .zip)" in texts(sets, "error")[0]
    assert "val: no class folders" in found
    assert "validation.tar is a tar file and was not checked" in found


def test_folders_without_images_and_folders_of_sets(small_photos: Data, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "sets").mkdir()
    shutil.copytree(small_photos.root, tmp_path / "sets" / "small")
    roots = [tmp_path / "empty", tmp_path / "sets", tmp_path / "missing", Path(__file__)]
    sets = look(*roots)
    assert [checked.root for checked in sets] == roots
    assert kind(sets) == "unknown"
    assert texts(sets) == texts(sets, "error")
    for found, text in zip(texts(sets), ("no image", "ROOT (small)", "No such file", "Not a directory"), strict=True):
        assert text in found


def test_no_link_leads_out_of_the_root_or_in_circles(own_photos: Data, photo: Path, tmp_path: Path) -> None:
    root = Path(own_photos.root)  # its train is a link
    val = root / "val"
    (val / "coffee" / "outside.jpg").symlink_to(photo)
    (val / "coffee" / "inside.jpg").symlink_to(val / "rocket" / "000.jpg")
    (val / "coffee" / "circle").symlink_to(val)
    sets = look(root)
    found = "\n".join(texts(sets, "warning"))
    assert "train is a link out of this folder" in found
    assert "1 links lead out of the root (coffee/outside.jpg)" in found
    assert "1 links lead in a circle, or to a folder again (coffee/circle), which stops" in texts(sets, "error")[0]
    assert "val: 25 images in 4 classes" in texts(sets)
    assert not [text for text in texts(sets) if text.startswith("train: ")]


def test_a_pipe_is_no_image(own_photos: Data) -> None:
    os.mkfifo(Path(own_photos.root, "val", "coffee", "pipe.jpg"))
    assert "val: 24 images in 4 classes" in texts(look(Path(own_photos.root), deep=True))


# --- the list of bad files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_the_bad_list_leaves_out_exactly_the_bad_images(own_photos: Data, tmp_path: Path, workers: int) -> None:
    val = Path(own_photos.root, "val")
    whole = ImageSet(own_photos, "val")
    ids = {whole.image_id(i) for i in range(len(whole))}
    truncate(val / "coffee" / "001.jpg")
    (val / "rocket" / "002.jpg").write_text("not an image\n")
    (val / "rocket" / "gone.JPEG").symlink_to(val / "nowhere")
    target = tmp_path / "bad.txt"
    sets = check([Path(own_photos.root)], deep=True, workers=workers, bad_files=target)
    assert target.read_text() == "coffee/001.jpg\nrocket/002.jpg\nrocket/gone.JPEG\n"
    (text,) = texts(sets, "error")
    assert text.startswith("val: 3 of 25 files decoded cannot be read, the first is coffee/001.jpg (")
    assert f"the unreadable images are listed in {target}" in texts(sets, "ok")

    rest = ImageSet(Data(name="rest", root=own_photos.root, bad_files=str(target)), "val")
    assert {rest.image_id(i) for i in range(len(rest))} == ids - {"coffee/001.jpg", "rocket/002.jpg"}
    for index in range(len(rest)):
        rest.read(index)


class Deadly(FileBatch):
    """Ends the process that receives it, as a file that crashes the decoder does."""

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        return os._exit, (1,)


def test_a_worker_that_dies_is_told() -> None:
    batch = Deadly(split="val", folder="images/val", images=("a.jpg",), decode=True)
    with pytest.raises(OSError, match=r"a process died while it decoded images, near images/val/a\.jpg"):
        list(find_faults([batch], workers=1, meter=Meter("decode", 1, show=False)))


def test_only_deep_finds_a_truncated_file_but_a_sample_finds_a_text_file(own_photos: Data) -> None:
    truncate(Path(own_photos.root, "val", "astronaut", "000.jpg"))
    assert not texts(look(Path(own_photos.root)), "error")
    for name in ("astronaut/000.jpg", "rocket/005.jpg"):  # the first and the last are in the sample
        Path(own_photos.root, "val", name).write_text("not an image")
    assert "val: 2 of 20 files sampled cannot be read" in texts(look(Path(own_photos.root)), "error")[0]


def test_readable_images_of_the_same_id_are_told(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    root = make_photos(tmp_path / "images")
    truncate(root / "val" / "coffee" / "000.jpg")
    sets = look(root, deep=True, bad_files=tmp_path / "bad.txt")
    (text,) = texts(sets, "warning")
    assert "1 readable images share their id with an unreadable one of another split (train/coffee/000.jpg)" in text


def test_a_name_that_no_line_can_hold_is_told(own_photos: Data, tmp_path: Path) -> None:
    Path(own_photos.root, "val", "coffee", "a\nb.jpg").write_text("no image")
    sets = look(Path(own_photos.root), deep=True, bad_files=tmp_path / "bad.txt")
    assert (tmp_path / "bad.txt").read_text() == ""
    assert any(r"1 names cannot stand in a list ('coffee/a\nb.jpg')" in text for text in texts(sets, "error"))
    assert not [text for text in texts(sets) if "\n" in text]


def test_a_sound_set_gives_an_empty_list(small_photos: Data, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("of an earlier check\n")
    sets = look(Path(small_photos.root), deep=True, bad_files=tmp_path / "bad.txt")
    assert (tmp_path / "bad.txt").read_text() == ""
    assert "72 files decoded, each can be read" in texts(sets)


def test_a_list_that_cannot_be_written_stops_before_the_decoding(small_photos: Data, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        look(Path(small_photos.root), deep=True, bad_files=tmp_path / "nowhere" / "bad.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bad-files", "bad.txt"], "--bad-files needs --deep"),
        (["--workers", "2"], "--workers needs --deep"),
        (["--deep", "--workers", "-1"], "--workers is -1"),
    ],
)
def test_options_without_effect_are_refused(small_photos: Data, arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command(parse(small_photos.root, *arguments))


def parse(*arguments: str) -> argparse.Namespace:
    return build_parser().parse_args(["data", "check", *arguments])


def test_the_command_prints_a_block_for_each_root(
    small_photos: Data, own_photos: Data, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(parse(small_photos.root)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{small_photos.root}: image folder",
        "  ok       train: 48 images in 4 classes",
        "  ok       val: 24 images in 4 classes",
        "  ok       40 files sampled, each can be read (--deep decodes all)",
    ]
    truncate(Path(own_photos.root, "val", "coffee", "001.jpg"))
    list_ = str(tmp_path / "bad.txt")
    assert command(parse(own_photos.root, small_photos.root, "--deep", "--workers", "0", "--bad-files", list_)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(": image folder")] == [
        f"{own_photos.root}: image folder",
        f"{small_photos.root}: image folder",
    ]
