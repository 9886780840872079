"""Features of whole sets: one decode for all models, kept until the records are there, whatever the processes."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.contracts.context import Context
from cim_bench.contracts.features import features_of
from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine import features as engine
from cim_bench.engine.inference import run_models
from cim_bench.evals.knn import KNN
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs.clean import plan_cleaning
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.records.store import read_records
from cim_bench.spec import Arch, Data, Machine
from tests.processes import in_two_processes

KNN_1 = KNN(k=(1, 5), crop_pct=1.0)
IMAGES = 4 * (12 + 6)


@pytest.fixture
def benchmark(tiny_arch: Arch, small_photos: Data, cpu: Machine) -> Benchmark:
    """Three backbones; the third sees images at another size."""
    archs = {"one": tiny_arch, "two": replace(tiny_arch, options={**tiny_arch.options, "depth": 1})}
    archs["three"] = replace(tiny_arch, image_size=48)
    return Benchmark(
        name="b",
        subjects={name: RandomInit(arch=arch) for name, arch in archs.items()},
        evaluators={"knn": KNN_1},
        data=small_photos,
        machine=cpu,
        executor=LocalExecutor(slots=1),
    )


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image was really read and decoded."""
    counts: Counter[str] = Counter()
    real = ImageSet.read

    def read(self: ImageSet, index: int) -> object:
        counts[f"{self.split}/{self.image_id(index)}"] += 1
        return real(self, index)

    monkeypatch.setattr(ImageSet, "read", read)
    return counts


@pytest.fixture
def models(tiny_arch: Arch) -> dict[str, Backbone]:
    sources = {"one": RandomInit(arch=tiny_arch), "three": RandomInit(arch=replace(tiny_arch, image_size=48))}
    return {name: load_backbone(random_checkpoint(source, 0), what=name) for name, source in sources.items()}


def contexts(folder: Path, models: dict[str, Backbone], data: Data, cpu: Machine, key: str) -> dict[str, Context]:
    meta = random_checkpoint(RandomInit(arch=models["one"].arch), 0).meta
    common = {"data": data, "machine": cpu, "seed": 0, "subject": meta, "key": key}
    return {name: Context(folder=folder / name, **common) for name in models}  # type: ignore[arg-type]


def numbers(folder: Path) -> dict[tuple[str, object], float]:
    found = (record for record in read_records(folder) if record.measurement)
    return {(r.subject.name, r.measurement.facets["k"]): r.measurement.value for r in found if r.measurement}


def test_each_image_is_decoded_once_for_all_models(benchmark: Benchmark, reads: Counter[str], tmp_path: Path) -> None:
    results = Runner(benchmark, tmp_path / "all").run()
    assert {r.status for r in results.values()} == {"done"}
    assert set(reads.values()) == {1}
    assert len(reads) == IMAGES
    alone: dict[tuple[str, object], float] = {}
    for name, source in benchmark.subjects.items():
        Runner(replace(benchmark, subjects={name: source}), tmp_path / name).run()
        alone |= numbers(tmp_path / name)
    assert len(alone) == 6
    assert numbers(tmp_path / "all") == alone
    assert not list(tmp_path.rglob("features*"))


def test_they_are_those_of_a_pass_in_memory(
    models: dict[str, Backbone], small_photos: Data, cpu: Machine, tmp_path: Path
) -> None:
    model, images = models["one"], ImageSet(small_photos, "val")
    kept = KNN_1.features(model, contexts(tmp_path, models, small_photos, cpu, "k")["one"])["val"]
    outputs, labels = run_models({"f": lambda x: model.feature(x, "cls")}, images, EvalTransform(32, 1.0), machine=cpu)
    values, known = kept.tensors()
    assert values[:, 0].equal(outputs["f"])  # one vector an image and block, here of the last output alone
    assert known.equal(labels)
    assert isinstance(kept.values, np.memmap)


def die_while_reading(benchmark: Benchmark, output: Path) -> None:
    """As of a kill: nothing is flushed, nothing is said."""
    real, left = ImageSet.read, iter(range(40))

    def read(self: ImageSet, index: int) -> object:
        if next(left, None) is None:
            os._exit(9)
        return real(self, index)

    ImageSet.read = read  # type: ignore[assignment, method-assign]
    Runner(benchmark, output).run()


def test_a_killed_run_goes_on_with_the_images_that_it_lacks(
    benchmark: Benchmark, reads: Counter[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "KEPT_EVERY", 1)
    Runner(benchmark, tmp_path / "whole").run()
    child = multiprocessing.get_context("fork").Process(target=die_while_reading, args=(benchmark, tmp_path / "killed"))
    child.start()
    child.join()
    assert child.exitcode == 9
    reads.clear()
    assert {r.status for r in Runner(benchmark, tmp_path / "killed").run().values()} == {"done"}
    assert len(reads) == IMAGES - 32  # two batches of 16 were kept
    assert set(reads.values()) == {1}
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


def test_a_model_that_joins_a_killed_run_decodes_only_what_any_lacks(
    models: dict[str, Backbone], small_photos: Data, cpu: Machine, reads: Counter[str], tmp_path: Path
) -> None:
    made = contexts(tmp_path, models, small_photos, cpu, "k")
    first = {name: features.values.copy() for name, features in KNN_1.features(models["one"], made["one"]).items()}
    (tmp_path / "one" / "features" / "train.done").write_bytes(b"\1" * 40 + b"\0" * 8)
    reads.clear()
    found = features_of(KNN_1, models, made)
    assert len(reads) == IMAGES
    assert set(reads.values()) == {1}
    assert all(np.allclose(found["one"][name].values, first[name], atol=1e-5) for name in first)
    reads.clear()
    features_of(KNN_1, models, made)
    assert not reads


def extract(rank: int, models: dict[str, Backbone], made: dict[str, Context]) -> None:
    counts, real = Counter[str](), ImageSet.read

    def read(self: ImageSet, index: int) -> object:
        counts[f"{self.split}/{self.image_id(index)}"] += 1
        return real(self, index)

    ImageSet.read = read  # type: ignore[assignment, method-assign]
    found = features_of(KNN_1, models, {name: replace(ctx, main=rank == 0) for name, ctx in made.items()})
    folder = made["one"].folder.parent
    for name, sets in found.items():
        for part, features in sets.items():
            np.save(folder / f"{rank}-{name}-{part}.npy", features.values)
    (folder / f"{rank}.txt").write_text("\n".join(counts.elements()))


def test_two_processes_share_the_images_and_both_see_all_rows(
    models: dict[str, Backbone], small_photos: Data, cpu: Machine, tmp_path: Path
) -> None:
    whole = features_of(KNN_1, models, contexts(tmp_path / "whole", models, small_photos, cpu, "k"))
    made = contexts(tmp_path, models, small_photos, cpu, "k")
    in_two_processes(extract, models, made, meet=tmp_path / "meet")
    for name, sets in whole.items():
        for part, features in sets.items():
            for rank in (0, 1):
                assert np.allclose(np.load(tmp_path / f"{rank}-{name}-{part}.npy"), features.values, atol=1e-5)
    decoded = [(tmp_path / f"{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    assert [len(names) for names in decoded] == [IMAGES // 2] * 2
    assert len({*decoded[0], *decoded[1]}) == IMAGES


def test_features_of_another_key_are_set_aside(
    models: dict[str, Backbone],
    small_photos: Data,
    cpu: Machine,
    reads: Counter[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for key in ("one", "two"):
        ctx = contexts(tmp_path, models, small_photos, cpu, key)["one"]
        KNN_1.features(models["one"], ctx)
    assert set(reads.values()) == {2}
    assert "holds features of another job (one); they are kept as features.unusable" in capsys.readouterr().err
    assert (tmp_path / "one" / "features.unusable" / "key").read_text() == "one"
    assert (tmp_path / "one" / "features" / "key").read_text() == "two"


def test_without_a_key_they_are_made_anew(
    models: dict[str, Backbone], small_photos: Data, cpu: Machine, reads: Counter[str], tmp_path: Path
) -> None:
    """A notebook's context does not say what its folder belongs to."""
    ctx = contexts(tmp_path, models, small_photos, cpu, "")["one"]
    for _ in range(2):
        KNN_1.features(models["one"], ctx)
    assert set(reads.values()) == {2}


def test_a_model_without_such_features_fails_alone(benchmark: Benchmark, reads: Counter[str], tmp_path: Path) -> None:
    resnet = RandomInit(arch=Arch(name="resnet10t", image_size=32))
    results = Runner(replace(benchmark, subjects={**benchmark.subjects, "cnn": resnet}), tmp_path).run()
    assert {name: r.status for name, r in results.items() if r.status != "done"} == {"cnn/knn": "failed"}
    assert "resnet10t has no 'cls' feature" in results["cnn/knn"].error
    assert set(reads.values()) == {1}


def test_a_number_that_cannot_be_had_fails_every_job_with_its_sentence(benchmark: Benchmark, tmp_path: Path) -> None:
    results = Runner(replace(benchmark, evaluators={"knn": KNN(k=(100,), crop_pct=1.0)}), tmp_path).run()
    assert {r.error for r in results.values()} == {"k=100 neighbours of a bank of 48 images; choose a smaller k"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.done", b"\1" * 7, "is of 7 images, and the set has 48"),
        ("train.npy", b"no array", "is damaged"),
        ("val.npy", b"", "is damaged"),
    ],
)
def test_damaged_files_are_named(
    models: dict[str, Backbone],
    small_photos: Data,
    cpu: Machine,
    tmp_path: Path,
    file: str,
    content: bytes,
    message: str,
) -> None:
    ctx = contexts(tmp_path, models, small_photos, cpu, "k")["one"]
    KNN_1.features(models["one"], ctx)
    path = ctx.folder / "features" / file
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path}.*{message}"):
        KNN_1.features(models["one"], ctx)


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    engine.FeatureFile(tmp_path, "train", 3).write([0], np.zeros((1, 4), np.float32), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=r"train\.npy holds rows of another shape or type; delete its folder"):
        engine.FeatureFile(tmp_path, "train", 3).write([1], np.zeros((1, 5), np.float32), np.zeros(1, np.int64))


def test_a_full_disk_is_one_sentence_before_the_pass(
    models: dict[str, Backbone], small_photos: Data, cpu: Machine, tiny_disk: Path, tmp_path: Path
) -> None:
    ctx = contexts(tiny_disk, models, small_photos, cpu, "k")["one"]
    wide = engine.FeatureFile(ctx.folder, "train", 48)
    ctx.folder.mkdir()
    with pytest.raises(OSError, match=r"cannot write .*train\.npy, of 48 images and 0\.00019\d* GB: No space left"):
        wide.write([0], np.zeros((1, 1000), np.float32), np.zeros(1, np.int64))


def test_clean_finds_what_a_kill_left_of_a_finished_job(benchmark: Benchmark, tmp_path: Path) -> None:
    Runner(benchmark, tmp_path).run()
    (folder,) = (tmp_path / "one").glob("knn-*")
    (folder / "features").mkdir()
    (folder / "features" / "train.npy").write_bytes(b"0" * 100)
    (found,) = plan_cleaning(tmp_path).removable
    assert (found.path, found.reason, found.size) == (folder / "features", "the features of a finished job", 100)
