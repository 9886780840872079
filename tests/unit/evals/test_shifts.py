"""Shifted sets by class name, by number and with ReaL labels; real photographs under the published layouts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cim_bench.benchmark import RandomInit
from cim_bench.contracts.context import Context
from cim_bench.data.classes import imagenet_a_wnids, imagenet_r_wnids, imagenet_wnids
from cim_bench.evals.classes import class_indices, count_warnings
from cim_bench.evals.shifts import Shift, real_labels
from cim_bench.jobs.passes import measure
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone
from cim_bench.recipes.shifts import imagenet_a, imagenet_r, imagenet_real, imagenet_sketch, imagenet_v2
from cim_bench.records.facets import column_name
from cim_bench.spec import Arch, Data, Machine


class Constant(Backbone):
    """A classifier of ImageNet's classes whose logits are the same for every image."""

    def __init__(self, arch: Arch, classes: tuple[str, ...], logits: Tensor) -> None:
        super().__init__(arch, num_classes=len(classes))
        self.classes, self.logits = classes, logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


def favourite(arch: Arch, *indices: int) -> Constant:
    """Likes these of the 1,000 classes, the first most."""
    logits = torch.zeros(1000)
    for rank, index in enumerate(indices):
        logits[index] = 10.0 - rank
    return Constant(arch, imagenet_wnids(), logits)


@pytest.fixture
def photo(small_photos: Data) -> Path:
    return next(Path(small_photos.root, "val", "chelsea").iterdir())


@pytest.fixture
def ctx(tiny_arch: Arch, small_photos: Data, cpu: Machine, tmp_path: Path) -> Context:
    meta = random_checkpoint(RandomInit(arch=tiny_arch), seed=0).meta
    return Context(data=small_photos, machine=cpu, seed=0, folder=tmp_path / "job", subject=meta)


def folders(root: Path, photo: Path, names: tuple[str, ...], count: int = 1) -> Data:
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(count):
            shutil.copy(photo, root / name / f"{number}.jpg")
    return Data(name=root.name, root=str(root), val_split=".")


def score(evaluator: Shift, model: Backbone, ctx: Context) -> dict[str, tuple[float, int]]:
    """Top-1 and count by the name of the outcome column."""
    evaluator.check(model, ctx)
    return {column_name(m.facets, {}): (m.value, m.n) for m in measure(evaluator, model, ctx)}


@pytest.mark.parametrize("wnids", [imagenet_a_wnids(), imagenet_r_wnids()])
def test_logits_are_cut_to_the_sets_own_classes(
    wnids: tuple[str, ...], tiny_arch: Arch, photo: Path, ctx: Context, tmp_path: Path
) -> None:
    """The favourite is outside the 200 classes; after the cut the second choice wins: 1 of 200 images is right."""
    data = folders(tmp_path / "shifted", photo, wnids)
    outside = next(i for i, wnid in enumerate(imagenet_wnids()) if wnid not in wnids)
    inside = imagenet_wnids().index(wnids[17])
    model = favourite(tiny_arch, outside, inside)
    assert score(Shift(data=data, crop_pct=1.0), model, ctx) == {"prediction": (1 / 200, 200)}


def test_clean_top1_of_the_same_classes_stands_beside(
    tiny_arch: Arch, photo: Path, ctx: Context, tmp_path: Path
) -> None:
    wnids = imagenet_wnids()
    shifted = folders(tmp_path / "shifted", photo, wnids[10:14])
    clean = folders(tmp_path / "imagenet" / "val", photo, wnids[8:20], count=2)
    ctx = replace(ctx, data=replace(clean, name="clean", root=str(tmp_path / "imagenet"), val_split="val"))
    model = favourite(tiny_arch, 9, 12)
    assert score(Shift(data=shifted, clean=True, crop_pct=1.0), model, ctx) == {
        "prediction": (1 / 4, 4),
        "clean-4": (2 / 8, 8),
    }


def test_clean_images_must_cover_the_classes(tiny_arch: Arch, photo: Path, ctx: Context, tmp_path: Path) -> None:
    wnids = imagenet_wnids()
    shifted = folders(tmp_path / "shifted", photo, wnids[10:14])
    clean = folders(tmp_path / "imagenet" / "val", photo, wnids[8:12])
    ctx = replace(ctx, data=replace(clean, name="clean", root=str(tmp_path / "imagenet"), val_split="val"))
    with pytest.raises(ValueError, match=f"no images of 2 classes, e.g. {wnids[12]}"):
        score(Shift(data=shifted, clean=True), favourite(tiny_arch, 1), ctx)


def test_v2_folders_are_numbers_not_strings(tiny_arch: Arch, photo: Path, ctx: Context, tmp_path: Path) -> None:
    """As strings 0, 1, 10, 2, ... folder 2 would get label 3."""
    data = folders(tmp_path / "v2", photo, tuple(str(i) for i in range(12)))
    found = {}
    for favoured in (2, 10, 11):
        own = replace(ctx, folder=tmp_path / f"job{favoured}")
        measure(Shift(data=data, labels="index", crop_pct=1.0), favourite(tiny_arch, favoured), own)
        import pyarrow.parquet as pq

        table = pq.read_table(own.folder / "outcomes" / "images-000.parquet").to_pandas()
        found[favoured] = table[table["label"] == table["prediction"]]["id"].tolist()
    assert found == {k: [f"{k}/0.jpg"] for k in (2, 10, 11)}
    data = folders(tmp_path / "wnids", photo, imagenet_wnids()[:1])
    with pytest.raises(ValueError, match="folder 'n01440764' is not a class number"):
        Shift(data=data, labels="index").parts(ctx)


def test_real_labels_skip_empty_and_take_any(tiny_arch: Arch, photo: Path, ctx: Context, tmp_path: Path) -> None:
    """By hand from the published list: images with several labels count any; those with none are left out."""
    lists = {i: real_labels(f"ILSVRC2012_val_{i:08d}.JPEG") for i in range(1, 400)}
    several = next(i for i, found in lists.items() if len(found) > 1)
    none = next(i for i, found in lists.items() if not found)
    one = next(i for i, found in lists.items() if len(found) == 1 and found[0] not in lists[several])
    folder = tmp_path / "imagenet" / "val" / "n01440764"
    folder.mkdir(parents=True)
    for number in (several, none, one):
        shutil.copy(photo, folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    data = Data(name="imagenet-real", root=str(tmp_path / "imagenet"))
    model = favourite(tiny_arch, lists[several][-1])
    assert score(Shift(data=data, labels="real", crop_pct=1.0), model, ctx) == {"prediction": (1 / 2, 2)}
    with pytest.raises(ValueError, match="ReaL labels go by the names"):
        real_labels("n01440764_10026.JPEG")


def test_ten_classes_on_imagenet_a_are_refused(tiny_arch: Arch, photo: Path, ctx: Context, tmp_path: Path) -> None:
    data = folders(tmp_path / "imagenet-a", photo, imagenet_a_wnids())
    model = Constant(tiny_arch, tuple("abcdefghij"), torch.zeros(10))
    with pytest.raises(
        ValueError, match=r"imagenet-a has 200 classes and 200 of them, e\.g\. n01498041, are not among"
    ):
        Shift(data=replace(data, name="imagenet-a")).check(model, ctx)
    for labels in ("index", "real"):
        with pytest.raises(ValueError, match="1,000 classes, in the order of wnids"):
            Shift(data=data, labels=labels).check(model, ctx)


def test_custom_sets_go_by_their_own_names(tiny_arch: Arch, photo: Path, ctx: Context, tmp_path: Path) -> None:
    data = folders(tmp_path / "drawings", photo, ("moon", "chelsea"))
    model = Constant(tiny_arch, ("astronaut", "chelsea", "moon"), torch.tensor([9.0, 2.0, 1.0]))
    assert score(Shift(data=data, crop_pct=1.0), model, ctx) == {"prediction": (1 / 2, 2)}
    with pytest.raises(ValueError, match=r"e\.g\. sun, are not among the classifier's 3"):
        class_indices(("moon", "sun"), model.classes, "drawings")


def test_another_number_of_images_under_a_released_name_is_noted(
    tiny_arch: Arch, photo: Path, ctx: Context, tmp_path: Path
) -> None:
    data = folders(tmp_path / "imagenet-r", photo, imagenet_r_wnids())
    score(Shift(data=data, crop_pct=1.0), favourite(tiny_arch, 1), ctx)
    assert ctx.warnings == ["200 images, where imagenet-r has 30,000"]
    assert count_warnings("imagenet-sketch", 50_000) == count_warnings("imagenet-sketch", 50_889) == []
    assert count_warnings("photos-r", 450) == []


def test_named_sets() -> None:
    made = [recipe() for recipe in (imagenet_a, imagenet_r, imagenet_sketch, imagenet_v2, imagenet_real)]
    assert [m.data.name for m in made] == [
        "imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2", "imagenet-real"
    ]  # fmt: skip
    assert [m.labels for m in made] == ["folder", "folder", "folder", "index", "real"]
