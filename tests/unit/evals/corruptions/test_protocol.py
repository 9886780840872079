"""ImageNet-C from files on disk and generated; both of real photographs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from cim_bench.benchmark import RandomInit
from cim_bench.contracts.context import Context
from cim_bench.data.images import ImageSet
from cim_bench.data.sets import CORRUPTIONS as RECOGNISED
from cim_bench.evals.classifier import make_classifier
from cim_bench.evals.corruptions.generate import CORRUPTIONS, SEVERITIES
from cim_bench.evals.corruptions.protocol import Corruptions
from cim_bench.evals.corruptions.write import write_corrupted
from cim_bench.jobs.passes import measure
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.records.facets import Facets
from cim_bench.spec import Arch, Data, Machine

ALL = {(name, severity) for name in CORRUPTIONS for severity in SEVERITIES}


def damages(found: Iterable[Facets]) -> set[tuple[object, ...]]:
    """Corruptions with their severity, if they have one."""
    return {tuple(facets.values()) for facets in found}


@pytest.fixture(scope="module")
def released(small_photos: Data, cpu: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 75 folders of two validation photographs of each of two classes, 32 pixels, as `data corrupt` writes them."""
    root = tmp_path_factory.mktemp("c")
    for label in ("astronaut", "rocket"):
        (root / "clean" / "val" / label).mkdir(parents=True)
        for source in sorted(Path(small_photos.root, "val", label).iterdir())[:2]:
            shutil.copy(source, root / "clean" / "val" / label)
    images = ImageSet(replace(small_photos, root=str(root / "clean")), "val")
    written = write_corrupted(
        images, root / "photos-c", corruptions=CORRUPTIONS, severities=SEVERITIES, size=32, crop_pct=1.0, seed=0,
        machine=cpu,
    )  # fmt: skip
    assert written == 75 * 4
    return root / "photos-c"


@pytest.fixture
def model(tiny_arch: Arch) -> Backbone:
    backbone = load_backbone(random_checkpoint(RandomInit(arch=tiny_arch), seed=0), what="r")
    classifier = make_classifier(backbone, 4, drop_path=0.0, head_std=0.5).eval()
    classifier.classes = ("astronaut", "chelsea", "coffee", "rocket")
    return classifier


@pytest.fixture
def ctx(tiny_arch: Arch, small_photos: Data, cpu: Machine, tmp_path: Path) -> Context:
    meta = random_checkpoint(RandomInit(arch=tiny_arch), seed=0).meta
    return Context(data=small_photos, machine=cpu, seed=0, folder=tmp_path, subject=meta)


def from_files(root: Path, **changes: object) -> Corruptions:
    return Corruptions(**{"data": Data(name="photos-c", root=str(root)), "size": 32, "subset": 2, **changes})  # type: ignore[arg-type]


def test_released_files_give_75_rows_and_the_subset_comes_first(released: Path, model: Backbone, ctx: Context) -> None:
    evaluator = from_files(released)
    evaluator.check(model, ctx)
    parts = evaluator.parts(ctx)
    assert [part.subset for part in parts] == [True] * 75 + [False] * 75
    assert damages(part.facets for part in parts[:75]) == ALL
    for part in parts[:75]:  # stratified, and the same images under every corruption
        assert [part.images.image_id(i) for i in range(2)] == [parts[0].images.image_id(i) for i in range(2)]
        assert sorted(part.images.labels() or []) == [0, 1]
    rows = measure(evaluator, model, ctx)
    assert damages(m.facets for m in rows) == ALL
    assert {(m.benchmark, m.n) for m in rows} == {("photos-c", 4)}
    assert ctx.warnings == ["files made by cim-bench data corrupt, not the released ones of photos-c"]


def test_grouped_folders_are_the_same_set(released: Path, model: Backbone, ctx: Context, tmp_path: Path) -> None:
    grouped = tmp_path / "grouped"
    groups = {"noise": CORRUPTIONS[:3], "blur": CORRUPTIONS[3:7], "weather": CORRUPTIONS[7:11]}
    groups["digital"] = CORRUPTIONS[11:]
    for group, names in groups.items():
        for name in names:
            shutil.copytree(released / name, grouped / group / name)
    flat, nested = (from_files(root).folders() for root in (released, grouped))
    assert flat.keys() == nested.keys() == ALL
    assert all("weather" in nested["fog", s].root for s in SEVERITIES)


def test_a_missing_severity_is_named(released: Path, model: Backbone, ctx: Context, tmp_path: Path) -> None:
    shutil.copytree(released, tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "fog" / "3")
    with pytest.raises(ValueError, match=r"lacks 1 of 75 folders CORRUPTION/SEVERITY, e\.g\. fog/3"):
        from_files(tmp_path / "c").check(model, ctx)


def test_another_pixel_size_is_refused_never_resized(
    released: Path, model: Backbone, ctx: Context, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="takes 32 pixels a side and photos-c is stored at 224"):
        from_files(released, size=224).check(model, ctx)
    shutil.copytree(released, tmp_path / "c")
    one = next((tmp_path / "c" / "contrast" / "2").rglob("*.JPEG"))
    with Image.open(one) as image:
        image.resize((40, 40)).save(one)
    with pytest.raises(ValueError, match="an image of 40x40 pixels, where every one must be stored at 32x32"):
        measure(from_files(tmp_path / "c"), model, ctx)


def test_folders_must_hold_the_same_images(released: Path, model: Backbone, ctx: Context, tmp_path: Path) -> None:
    shutil.copytree(released, tmp_path / "c")
    next((tmp_path / "c" / "snow" / "5").rglob("*.JPEG")).unlink()
    with pytest.raises(ValueError, match="snow/5 does not hold the same images"):
        from_files(tmp_path / "c").parts(ctx)


def test_generated_rows_are_those_of_the_files_that_data_corrupt_writes(
    released: Path, model: Backbone, ctx: Context, tmp_path: Path
) -> None:
    """One geometry, one generator, one JPEG: the same predictions from memory and from disk."""
    clean = replace(ctx.data, root=str(released.parent / "clean"))
    evaluator = Corruptions(source="generated", crop_pct=1.0, subset=0)
    generated = measure(evaluator, model, replace(ctx, data=clean, folder=tmp_path / "generated"))
    assert damages(m.facets for m in generated) == ALL | {("clean",)}
    assert {m.benchmark for m in generated} == {"small-c-generated"}
    measure(from_files(released, subset=0), model, replace(ctx, folder=tmp_path / "files"))
    memory = pq.read_table(tmp_path / "generated" / "outcomes" / "images-000.parquet").to_pandas()
    for name, severity in ALL:
        column = f"{name}-{severity}"
        disk = pq.read_table(tmp_path / "files" / "outcomes" / f"{column}-000.parquet").to_pandas()
        assert memory[column].tolist() == disk[column].tolist(), column


def test_a_generated_record_says_so(model: Backbone, ctx: Context) -> None:
    measure(Corruptions(source="generated", crop_pct=1.0, subset=0), model, ctx)
    assert "generated on the fly" in ctx.warnings[0]


def test_the_check_knows_the_same_fifteen() -> None:
    assert {name for names in RECOGNISED.values() for name in names} == set(CORRUPTIONS)
