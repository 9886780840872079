"""One pass for all models: decoded once, kept part by part, continued after a kill, upgraded from a subset."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.cli import commands as cli
from cim_bench.contracts.parts import split_parts, stratified_order
from cim_bench.data.images import ImageSet
from cim_bench.evals.adversarial import Adversarial
from cim_bench.evals.classifier import make_classifier
from cim_bench.evals.corruptions import weather
from cim_bench.evals.corruptions.protocol import Corruptions
from cim_bench.evals.finetune import Finetune
from cim_bench.evals.shifts import Shift
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs import passes as passes_module
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import load_backbone
from cim_bench.models.checkpoint import save_checkpoint
from cim_bench.records.facets import FacetKey, facet_key
from cim_bench.records.record import Record
from cim_bench.records.store import read_records
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine, Training

CLASSES = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="session")
def classifiers(tiny_arch: Arch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, FromCheckpoint]:
    """Three untrained classifiers of the small photographs' classes; the third sees them at another size."""
    root, made = tmp_path_factory.mktemp("classifiers"), {}
    for seed, (name, size) in enumerate({"one": 32, "two": 32, "three": 48}.items()):
        arch = replace(tiny_arch, image_size=size)
        checkpoint = random_checkpoint(RandomInit(arch=arch), seed)
        net = make_classifier(load_backbone(checkpoint, what=name), 4, drop_path=0.0, head_std=0.5).net
        meta = replace(checkpoint.meta, kind="classifier", classes=CLASSES, global_pool="avg")
        save_checkpoint(root / name, net.state_dict(), meta)
        made[name] = FromCheckpoint(path=str(root / name))
    return made


@pytest.fixture
def benchmark(classifiers: dict[str, FromCheckpoint], small_photos: Data, cpu: Machine) -> Benchmark:
    shifted = replace(small_photos, name="shifted")
    evaluators = {"attacks": Adversarial(crop_pct=1.0, steps=1), "shift": Shift(data=shifted, crop_pct=1.0)}
    return Benchmark(
        name="m",
        subjects=dict(classifiers),
        evaluators=evaluators,
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
        counts[f"{self.name}/{self.image_id(index)}"] += 1
        return real(self, index)

    monkeypatch.setattr(ImageSet, "read", read)
    return counts


def by_subject(folder: Path) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in read_records(folder):
        found.setdefault(record.subject.name, []).append(record)
    return found


def numbers(folder: Path) -> dict[tuple[str, str, FacetKey], float]:
    return {
        (r.subject.name, r.protocol.evaluator, facet_key(r.measurement.facets)): r.measurement.value
        for r in read_records(folder)
        if r.measurement and not r.protocol.partial
    }


def test_each_image_is_decoded_once_for_all_models(benchmark: Benchmark, reads: Counter[str], tmp_path: Path) -> None:
    """Three models, two input sizes, two sets of 24 images."""
    results = Runner(benchmark, tmp_path / "all").run()
    assert {r.status for r in results.values()} == {"done"}
    assert set(reads.values()) == {1}
    assert len(reads) == 2 * 24
    alone = {}
    for name, source in benchmark.subjects.items():
        Runner(replace(benchmark, subjects={name: source}), tmp_path / name).run()
        alone |= numbers(tmp_path / name)
    assert numbers(tmp_path / "all") == alone


def test_a_pass_waits_for_classifiers_that_are_still_to_be_tuned(
    benchmark: Benchmark, tiny_arch: Arch, reads: Counter[str], tmp_path: Path
) -> None:
    subjects = {"given": benchmark.subjects["one"], "tuned": RandomInit(arch=tiny_arch)}
    tuning = Finetune(training=Training(epochs=1, effective_batch=16, base_lr=1e-3), crop_pct=1.0)
    evaluators = {"shift": benchmark.evaluators["shift"], "finetune": tuning}
    results = Runner(replace(benchmark, subjects=subjects, evaluators=evaluators), tmp_path).run()
    assert {name: r.status for name, r in results.items()} == {
        "given/shift": "done",
        "tuned/finetune": "done",
        "tuned/shift": "done",
    }
    shifted = {name: count for name, count in reads.items() if name.startswith("shifted/")}
    assert len(shifted) == 24
    assert set(shifted.values()) == {1}


def test_a_new_subject_joins_without_touching_the_others(
    benchmark: Benchmark, reads: Counter[str], tmp_path: Path
) -> None:
    two = {name: source for name, source in benchmark.subjects.items() if name != "two"}
    Runner(replace(benchmark, subjects=two), tmp_path).run()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.is_file()}
    results = Runner(benchmark, tmp_path).run()
    assert Counter(r.status for r in results.values()) == {"skipped": 4, "done": 2}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert set(reads.values()) == {2}


def test_a_model_that_does_not_fit_fails_alone(benchmark: Benchmark, tiny_arch: Arch, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(RandomInit(arch=tiny_arch), 0)
    net = make_classifier(load_backbone(checkpoint, what="x"), 2, drop_path=0.0, head_std=0.5).net
    meta = replace(checkpoint.meta, kind="classifier", classes=("a", "b"), global_pool="avg")
    save_checkpoint(tmp_path / "odd", net.state_dict(), meta)
    odd = {**benchmark.subjects, "odd": FromCheckpoint(path=str(tmp_path / "odd"))}
    results = Runner(replace(benchmark, subjects=odd), tmp_path / "out").run()
    failed = {name: r.error for name, r in results.items() if r.status == "failed"}
    assert set(failed) == {"odd/attacks", "odd/shift"}
    assert "small has 4 classes and 4 of them, e.g. astronaut, are not among" in failed["odd/attacks"]
    assert "shifted has 4 classes and 4 of them, e.g. astronaut, are not among" in failed["odd/shift"]


def test_a_killed_pass_goes_on_with_the_next_part(
    benchmark: Benchmark, reads: Counter[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Parts of 7 images; killed in the third; what was kept is neither read nor written again."""
    monkeypatch.setattr(split_parts, "__kwdefaults__", {**split_parts.__kwdefaults__, "size": 7})
    benchmark = replace(benchmark, evaluators={"attacks": benchmark.evaluators["attacks"]})
    Runner(benchmark, tmp_path / "whole").run()
    reads.clear()
    real, rounds = passes_module.run_pass, iter([True, True, False])

    def killed(*args: object, **kwargs: object) -> object:
        if not next(rounds):
            raise KeyboardInterrupt
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(passes_module, "run_pass", killed)
    with pytest.raises(KeyboardInterrupt):
        Runner(benchmark, tmp_path / "killed").run()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*.parquet")}
    assert len(kept) == 2 * 3
    assert numbers(tmp_path / "killed") == {}
    monkeypatch.setattr(passes_module, "run_pass", real)
    Runner(benchmark, tmp_path / "killed").run()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert set(reads.values()) == {1}
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


def test_outcomes_of_an_earlier_version_are_refused(benchmark: Benchmark, reads: Counter[str], tmp_path: Path) -> None:
    """Before 0.3.0 they did not say of which job they are; those were of other keys, so that none is found unmoved."""
    evaluators = {"attacks": replace(benchmark.evaluators["attacks"], eps=(1 / 255, 8 / 255), subset=8)}  # type: ignore[type-var]
    benchmark = replace(benchmark, subjects={"one": benchmark.subjects["one"]}, evaluators=evaluators)
    Runner(benchmark, tmp_path / "whole").run()
    first = replace(benchmark, machine=replace(benchmark.machine, subset_only=True))
    assert Runner(first, tmp_path / "old").run()["one/attacks"].status == "partial"
    (file,) = (tmp_path / "old").rglob("*.parquet")
    table = pq.read_table(file)
    assert table.column_names == ["id", "label", "clean", "fgsm", "fgsm eps=8/255", "pgd", "pgd eps=8/255"]
    pq.write_table(pa.table({name: table[name].combine_chunks() for name in table.column_names}), file)
    assert not any(field.metadata for field in pq.read_schema(file))
    before, stamp = file.read_bytes(), file.stat().st_mtime_ns
    reads.clear()
    result = Runner(benchmark, tmp_path / "old").run()["one/attacks"]
    assert result.status == "failed"
    assert f"{file} is not of this job; delete it and run again" in result.error
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (before, stamp)
    assert not reads
    file.unlink()
    assert Runner(benchmark, tmp_path / "old").run()["one/attacks"].status == "done"
    assert numbers(tmp_path / "old") == numbers(tmp_path / "whole")


def test_damaged_outcomes_are_named_and_nothing_is_lost(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Runner(benchmark, tmp_path).run()
    (folder,) = (tmp_path / "one").glob("attacks-*")
    (folder / "records.jsonl").unlink()  # killed before the end
    file = folder / "outcomes" / "images-000.parquet"
    file.write_bytes(file.read_bytes()[:100])
    others = {path: path.read_bytes() for path in tmp_path.rglob("records.jsonl")}
    results = Runner(benchmark, tmp_path).run()
    assert results["one/attacks"].status == "failed"
    assert f"{file} is damaged" in results["one/attacks"].error
    assert "delete it and run the same command again" in results["one/attacks"].error
    assert {path: path.read_bytes() for path in others} == others
    file.unlink()
    assert Runner(benchmark, tmp_path).run()["one/attacks"].status == "done"


def test_outcomes_of_other_images_are_refused(benchmark: Benchmark, tmp_path: Path) -> None:
    """As many rows, but one image of another part: it would count twice, and another never."""
    Runner(benchmark, tmp_path).run()
    (folder,) = (tmp_path / "one").glob("attacks-*")
    (folder / "records.jsonl").unlink()
    file = folder / "outcomes" / "images-000.parquet"
    table = pq.read_table(file)
    ids = table["id"].to_pylist()
    pq.write_table(table.set_column(0, "id", pa.array([ids[1], *ids[1:]])), file)
    result = Runner(benchmark, tmp_path).run()["one/attacks"]
    assert result.status == "failed"
    assert f"{file} holds other images than this part's 24" in result.error


def rename_a_column(table: pa.Table) -> pa.Table:
    return table.rename_columns(["bim" if name == "pgd" else name for name in table.column_names])


def drop_a_column(table: pa.Table) -> pa.Table:
    return table.drop_columns(["fgsm"])


def all_right(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("pgd"), table.schema.field("pgd"), table["label"])


def other_labels(table: pa.Table) -> pa.Table:
    return table.set_column(1, "label", pa.array([0] * table.num_rows, pa.int64()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_a_column, "is not of this job"),
        (drop_a_column, "was changed after it was written"),
        (all_right, "was changed after it was written"),
        (other_labels, "holds other labels than the set"),
    ],
)
def test_a_kept_part_that_was_changed_is_refused(
    benchmark: Benchmark, tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    benchmark = replace(benchmark, subjects={"one": benchmark.subjects["one"]})
    Runner(benchmark, tmp_path).run()
    (folder,) = (tmp_path / "one").glob("attacks-*")
    (folder / "records.jsonl").unlink()
    file = folder / "outcomes" / "images-000.parquet"
    pq.write_table(change(pq.read_table(file)), file)
    result = Runner(benchmark, tmp_path).run()["one/attacks"]
    assert result.status == "failed"
    assert f"{file} {message}; delete it and run again" in result.error


def test_frost_that_changes_between_a_subset_and_its_completion_is_another_job(
    benchmark: Benchmark, tmp_path: Path, photos_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(weather.FROST_VARIABLE, raising=False)
    crops = sorted((photos_root / "val" / "chelsea").iterdir())
    (tmp_path / "frost").mkdir()
    for number, name in enumerate(weather.FROST_FILES):
        with Image.open(crops[number]) as crop:
            crop.resize((70, 70)).save(tmp_path / "frost" / name)
    small = replace(
        benchmark,
        subjects={"one": benchmark.subjects["one"]},
        evaluators={"c": Corruptions(source="generated", crop_pct=1.0, subset=4)},
    )
    first = replace(small, machine=replace(small.machine, subset_only=True))
    assert Runner(first, tmp_path / "out").run()["one/c"].status == "partial"
    monkeypatch.setenv(weather.FROST_VARIABLE, str(tmp_path / "frost"))
    assert Runner(first, tmp_path / "out").run()["one/c"].status == "partial"
    found = [record.protocol.identity for record in read_records(tmp_path / "out")]
    assert len(found) == 2 * 76
    assert {identity["frost"] for identity in found} == {"procedural", weather.frost_identity()}
    assert {identity["corruptions"] for identity in found} == {"1"}


def test_a_subset_first_and_the_whole_later(benchmark: Benchmark, reads: Counter[str], tmp_path: Path) -> None:
    """With 8 of 24 images there are partial records of the same key; the same command completes them."""
    evaluators = {"c": Corruptions(source="generated", crop_pct=1.0, subset=8)}
    small = replace(benchmark, subjects={"one": benchmark.subjects["one"]}, evaluators=evaluators)
    first = replace(small, machine=replace(small.machine, subset_only=True))
    assert Runner(first, tmp_path).run()["one/c"].status == "partial"
    (job,) = (tmp_path / "one").iterdir()
    partial = list(read_records(job / "partial"))
    assert len(partial) == 76
    assert {r.measurement.n for r in partial if r.measurement} == {8}
    assert all(r.protocol.partial for r in partial)
    assert not (job / "records.jsonl").exists()
    assert Runner(first, tmp_path).run()["one/c"].status == "skipped"
    assert sum(reads.values()) == 8

    assert Runner(small, tmp_path).run()["one/c"].status == "done"
    assert set(reads.values()) == {1}
    whole = list(read_records(job / "records.jsonl"))
    assert {r.measurement.n for r in whole if r.measurement} == {24}
    assert {r.key for r in whole} == {r.key for r in partial}
    assert not any(r.protocol.partial for r in whole)
    Runner(small, tmp_path / "once").run()
    assert numbers(tmp_path / "once") == numbers(tmp_path)


class _Labelled:
    """An image set as the order sees it."""

    def __init__(self, labels: list[int]) -> None:
        self.own = labels

    def __len__(self) -> int:
        return len(self.own)

    def labels(self) -> list[int]:
        return self.own


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 3))
def test_every_beginning_of_the_order_is_stratified(labels: list[int], seed: int) -> None:
    """A class may lag only when its images are used up."""
    order = stratified_order(_Labelled(labels), seed)  # type: ignore[arg-type]
    assert sorted(order) == list(range(len(labels)))
    total = Counter(labels)
    for end in range(1, len(order) + 1):
        taken = Counter(labels[place] for place in order[:end])
        most = max(taken.values())
        assert all(taken[c] >= min(total[c], most - 1) for c in total)


@pytest.fixture
def val_set(small_photos: Data) -> ImageSet:
    return ImageSet(small_photos, "val")


@pytest.mark.parametrize(("subset", "size"), [(0, 5), (8, 5), (24, 100), (40, 7), (1, 1)])
def test_parts_hold_every_image_once(val_set: ImageSet, subset: int, size: int) -> None:
    parts = split_parts(val_set, subset=subset, size=size)
    ids = [part.images.image_id(i) for part in parts for i in range(len(part.images))]
    assert sorted(ids) == sorted(val_set.image_id(i) for i in range(24))
    assert len(ids) == 24
    assert [part.subset for part in parts].count(True) == (0 < subset < 24)
    assert len({part.name for part in parts}) == len(parts)


def test_the_place_of_a_set_is_not_part_of_the_protocol_but_its_content_is(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    """Moved, it is the same measurement; with another image, another one."""
    source = benchmark.evaluators["shift"]
    assert isinstance(source, Shift)
    shutil.copytree(source.data.root, tmp_path / "moved")
    moved = replace(source, data=replace(source.data, root=str(tmp_path / "moved")))
    one = {"one": benchmark.subjects["one"]}
    runs = [replace(benchmark, subjects=one, evaluators={"shift": e}) for e in (source, moved)]
    assert Runner(runs[0], tmp_path / "out").run()["one/shift"].status == "done"
    assert Runner(runs[1], tmp_path / "out").run()["one/shift"].status == "skipped"
    next((tmp_path / "moved" / "val" / "chelsea").iterdir()).unlink()
    assert Runner(runs[1], tmp_path / "out").run()["one/shift"].status == "done"
    assert len(list((tmp_path / "out" / "one").glob("shift-*"))) == 2


def test_the_plan_names_what_is_missing(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    evaluators = {"c": Corruptions(data=Data(name="imagenet-c", root=str(tmp_path / "no"))), **benchmark.evaluators}
    subjects = {"one": benchmark.subjects["one"], "gone": FromCheckpoint(path=str(tmp_path / "gone"))}
    planned = replace(benchmark, subjects=subjects, evaluators={**evaluators, "finetune": Finetune()})
    assert cli.run_benchmark(planned, tmp_path / "out", plan=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"missing   one/c", "to do     one/attacks", "missing   gone/finetune"} <= set(lines)
    lacks = f"{tmp_path / 'no'} lacks 75 of 75 folders CORRUPTION/SEVERITY, e.g. gaussian_noise/1; "
    (corrupted,) = [line for line in lines if line.startswith(f"  --evaluators.c.data.root  {lacks}")]
    assert corrupted.endswith(" [2 jobs: c]")
    gone = f"  --subjects.gone.path  there is no checkpoint file {tmp_path / 'gone'}; give a file, a folder of ours"
    (checkpoint,) = [line for line in lines if line.startswith(gone)]
    assert checkpoint.endswith("finetune]")
