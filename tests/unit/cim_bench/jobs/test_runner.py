from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.cli import commands as cli
from cim_bench.common.errors import one_sentence
from cim_bench.common.files import check_writable, safe_name
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.data.images import ImageError
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine.inference import run_models
from cim_bench.evals.metrics import accuracy
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs.identity import protocol_info
from cim_bench.jobs.plan import make_plan
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone
from cim_bench.models.checkpoint import Meta, load_checkpoint, save_checkpoint
from cim_bench.records.measurement import Measurement
from cim_bench.records.record import Record
from cim_bench.records.store import RECORDS_FILE, is_finished, read_records
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine

CALLS: list[str] = []
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def clean_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    CALLS.clear()
    BROKEN.clear()
    monkeypatch.delenv("CIM_BENCH_DEBUG", raising=False)


@dataclass(frozen=True, kw_only=True)
class Toy(Evaluator):
    """How often the brightest feature is the label."""

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"

    shift: int = 0

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        CALLS.append(f"{type(self).__name__} {ctx.subject.kind}")
        if type(self).__name__ in BROKEN:
            raise ValueError("the toy\nis broken")
        val = ctx.val_images()
        outputs, labels = run_models({"m": model}, val, EvalTransform(32, 1.0), machine=ctx.machine)
        predictions = (outputs["m"][:, :4].argmax(dim=1) + self.shift) % 4
        ctx.save_outcomes(val, labels, [({"toys.kind": "toy"}, predictions)])
        ctx.warnings.append("a toy")
        value, n = accuracy(predictions, labels)
        for name in ("first", "second"):
            facets = {"toys.name": name}
            yield Measurement(benchmark=val.name, split=val.split, metric="top1", value=value, n=n, facets=facets)


@dataclass(frozen=True, kw_only=True)
class Finetune(Toy):
    """Goes by the name ``finetune``; saves a classifier."""

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        yield from super().run(model, ctx)
        classes = ctx.train_images().classes
        tuned = Backbone(model.arch, num_classes=len(classes))
        meta = Meta(
            kind="classifier",
            method=ctx.subject.method,
            arch=model.arch,
            epochs=None,
            seed=ctx.seed,
            parent=ctx.subject.hash,
            classes=classes,
        )
        ctx.save_classifier(tuned.net.state_dict(), meta)


@dataclass(frozen=True, kw_only=True)
class Attack(Toy):
    needs: ClassVar[Literal["backbone", "classifier"]] = "classifier"


@dataclass(frozen=True, kw_only=True)
class Silent(Toy):
    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        yield from ()


@pytest.fixture
def benchmark(tiny_arch: Arch, small_photos: Data, cpu: Machine) -> Benchmark:
    return Benchmark(
        name="toys",
        subjects={"random": RandomInit(arch=tiny_arch)},
        evaluators={"attack": Attack(), "toy": Toy(), "tuning": Finetune()},
        data=small_photos,
        machine=cpu,
        executor=LocalExecutor(slots=1),
    )


def statuses(runner: Runner) -> dict[str, str]:
    return {name: result.status for name, result in runner.run().items()}


def errors(runner: Runner) -> dict[str, tuple[str, str]]:
    return {name: (result.status, result.error) for name, result in runner.run().items()}


def by_protocol(folder: Path) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in read_records(folder):
        found.setdefault(record.protocol.evaluator, []).append(record)
    return found


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Of all that jobs keep: the time of the written benchmark tells which one was run last."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "benchmarks")
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_every_job_leaves_records_with_their_provenance(benchmark: Benchmark, tmp_path: Path) -> None:
    assert statuses(Runner(benchmark, tmp_path)) == {
        "random/toy": "done",
        "random/tuning": "done",
        "random/attack": "done",
    }
    assert CALLS == ["Finetune backbone", "Toy backbone", "Attack classifier"]  # what others need comes first
    found = by_protocol(tmp_path)
    assert {name: len(records) for name, records in found.items()} == {"attack": 2, "finetune": 2, "toy": 2}
    weights = random_checkpoint(RandomInit(arch=next(iter(benchmark.subjects.values())).arch), 0).meta.hash  # type: ignore[union-attr]
    toy, tuned, attack = (found[name][0] for name in ("toy", "finetune", "attack"))
    assert toy.subject.checkpoint == tuned.subject.checkpoint == attack.subject.parent == weights
    assert attack.subject.checkpoint != weights
    assert (toy.subject.name, toy.subject.method, toy.warnings) == ("random", "random", ("a toy",))
    assert toy.measurement is not None
    assert (toy.measurement.n, toy.measurement.facets) == (24, {"toys.name": "first"})
    assert toy.provenance.data == Runner(benchmark, tmp_path).states.fingerprint(Toy())
    assert toy.provenance.time.endswith("+00:00")
    assert {"torch", "timm"} <= toy.provenance.packages.keys()
    assert len({record.key for records in found.values() for record in records}) == 3


def test_a_second_run_skips_everything_and_touches_nothing(benchmark: Benchmark, tmp_path: Path) -> None:
    Runner(benchmark, tmp_path).run()
    before = contents(tmp_path)
    CALLS.clear()
    again = Runner(benchmark, tmp_path)
    assert {again.states.status(job) for job in make_plan(benchmark)} == {"finished"}
    assert set(statuses(again).values()) == {"skipped"}
    assert CALLS == []
    assert contents(tmp_path) == before


def test_another_seed_setting_or_data_set_is_another_job_and_overwrites_nothing(
    benchmark: Benchmark, own_photos: Data, tmp_path: Path
) -> None:
    benchmark = replace(benchmark, evaluators={"toy": Toy()})
    output = tmp_path / "out"
    Runner(benchmark, output).run()
    before = contents(output)
    Path(own_photos.root, "val", "rocket", "000.jpg").unlink()
    variants = [
        replace(benchmark, seed=1),
        replace(benchmark, evaluators={"toy": Toy(shift=1)}),
        replace(benchmark, data=own_photos),
    ]
    for variant in variants:
        assert statuses(Runner(variant, output)) == {"random/toy": "done"}
        assert statuses(Runner(variant, output)) == {"random/toy": "skipped"}
    assert before.items() <= contents(output).items()
    assert len({record.key for record in read_records(output)}) == 4
    assert next(r for r in read_records(output) if r.protocol.passed).protocol.passed == {"shift": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
        {"method": "other"},
        {"arch": {"num_heads": 4}},
    ],
    ids=str,
)
def test_the_same_weights_under_another_identity_are_another_job(
    benchmark: Benchmark, tmp_path: Path, change: dict[str, Any]
) -> None:
    """A corrected normalisation, method or number of heads must not find the old number."""
    source = benchmark.subjects["random"]
    assert isinstance(source, RandomInit)
    first = random_checkpoint(source, 0)
    if "arch" in change:
        arch = first.meta.arch
        change = {"arch": replace(arch, options={**arch.options, **change["arch"]})}
    other = replace(first.meta, **change)
    assert other.hash == first.meta.hash
    assert other.identity != first.meta.identity
    for place, meta in (("one", first.meta), ("two", other)):
        save_checkpoint(tmp_path / place, first.state, meta)
    runs = [
        replace(benchmark, subjects={"s": FromCheckpoint(path=str(tmp_path / p))}, evaluators={"toy": Toy()})
        for p in ("one", "two")
    ]
    assert [statuses(Runner(run, tmp_path / "out")) for run in runs] == [{"s/toy": "done"}] * 2
    assert len({record.key for record in read_records(tmp_path / "out")}) == 2


def test_how_the_work_is_fitted_to_the_machine_is_the_same_job(benchmark: Benchmark, tmp_path: Path) -> None:
    benchmark = replace(benchmark, evaluators={"toy": Toy()})
    Runner(benchmark, tmp_path).run()
    other = replace(benchmark, name="other", machine=replace(benchmark.machine, micro_batch=3))
    assert statuses(Runner(other, tmp_path)) == {"random/toy": "skipped"}


def test_a_failing_job_is_recorded_the_others_finish_and_the_command_fails(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    BROKEN.add("Toy")
    assert cli.run_benchmark(benchmark, tmp_path) == 1
    assert "cim-bench: random/toy failed: the toy is broken" in capsys.readouterr().err.splitlines()
    found = by_protocol(tmp_path)
    (failed,) = found["toy"]
    assert failed.measurement is None
    assert (failed.provenance.status, failed.provenance.error) == ("failed", "the toy is broken")
    assert failed.protocol.settings == {"type": "Toy", "shift": 0}
    assert all(r.measurement is not None for name in ("finetune", "attack") for r in found[name])

    BROKEN.clear()
    CALLS.clear()
    assert cli.run_benchmark(benchmark, tmp_path) == 0
    assert CALLS == ["Toy backbone"]
    assert all(record.measurement is not None for record in read_records(tmp_path))


def test_what_needs_a_failed_job_is_blocked_and_says_so(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BROKEN.add("Finetune")
    assert errors(Runner(benchmark, tmp_path)) == {
        "random/toy": ("done", ""),
        "random/tuning": ("failed", "the toy is broken"),
        "random/attack": ("blocked", "needs random/tuning"),
    }
    assert "Attack classifier" not in CALLS
    (blocked,) = by_protocol(tmp_path)["attack"]
    assert blocked.provenance.error == "blocked: random/tuning failed"
    states = {job.name: Runner(benchmark, tmp_path).states.status(job) for job in make_plan(benchmark)}
    assert states == {"random/toy": "finished", "random/tuning": "to do", "random/attack": "waits"}
    assert cli.run_benchmark(benchmark, tmp_path) == 1

    BROKEN.clear()
    assert statuses(Runner(benchmark, tmp_path)) == {
        "random/toy": "skipped",
        "random/tuning": "done",
        "random/attack": "done",
    }
    assert all(record.measurement is not None for record in read_records(tmp_path))


def test_everything_failed_leaves_no_table(
    benchmark: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    BROKEN.add("Toy")
    assert cli.run_benchmark(replace(benchmark, evaluators={"toy": Toy()}), tmp_path) == 1
    assert capsys.readouterr().out == ""


def test_the_plan_is_printed_and_nothing_runs(
    benchmark: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_benchmark(benchmark, tmp_path / "out", plan=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:2]] == ["random/toy", "random/tuning"]
    assert lines[2].startswith("waits")
    assert lines[2].endswith("random/attack  (after random/tuning)")
    assert CALLS == []
    assert not (tmp_path / "out").exists()


def test_an_evaluator_that_measures_nothing_fails(benchmark: Benchmark, tmp_path: Path) -> None:
    runner = Runner(replace(benchmark, evaluators={"silent": Silent()}), tmp_path)
    assert errors(runner) == {"random/silent": ("failed", "silent measured nothing")}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_fails_the_job_by_name_in_one_sentence(
    benchmark: Benchmark, own_photos: Data, tmp_path: Path, workers: int
) -> None:
    os.truncate(Path(own_photos.root, "val", "coffee", "004.jpg"), 700)
    machine = replace(benchmark.machine, workers=workers)
    runner = Runner(replace(benchmark, data=own_photos, machine=machine, evaluators={"toy": Toy()}), tmp_path / "out")
    status, error = errors(runner)["random/toy"]
    assert status == "failed"
    assert error.startswith("cannot read image coffee/004.jpg of small/val: ")
    assert "Traceback" not in error
    assert "\n" not in error


def test_a_checkpoint_that_is_missing_fails_its_row_only(benchmark: Benchmark, tmp_path: Path) -> None:
    subjects = {"given": FromCheckpoint(path=str(tmp_path / "no")), **benchmark.subjects}
    runner = Runner(replace(benchmark, subjects=subjects, evaluators={"toy": Toy()}), tmp_path / "out")
    found = errors(runner)
    assert [status for status, _ in found.values()] == ["failed", "done"]
    assert found["given/toy"][1].startswith(f"there is no checkpoint file {tmp_path / 'no'}; give ")


def test_a_classifier_is_not_probed_as_a_backbone(benchmark: Benchmark, tmp_path: Path) -> None:
    Runner(replace(benchmark, evaluators={"tuning": Finetune()}), tmp_path / "one").run()
    (folder,) = (tmp_path / "one").rglob("classifier")
    assert load_checkpoint(folder).meta.classes == ("astronaut", "chelsea", "coffee", "rocket")
    given_ = replace(benchmark, subjects={"given": FromCheckpoint(path=str(folder))}, evaluators={"toy": Toy()})
    runner = Runner(given_, tmp_path / "two")
    status, error = errors(runner)["given/toy"]
    assert status == "failed"
    assert "toy takes a pre-trained backbone, and given is a fine-tuned classifier" in error


def test_damaged_records_are_not_taken_for_finished(benchmark: Benchmark, tmp_path: Path) -> None:
    benchmark = replace(benchmark, evaluators={"toy": Toy()})
    Runner(benchmark, tmp_path).run()
    (file,) = tmp_path.rglob(RECORDS_FILE)
    (first, _) = read_records(file)
    assert is_finished(file.parent, first.key)
    os.truncate(file, file.stat().st_size // 3)
    runner = Runner(benchmark, tmp_path)
    status, error = errors(runner)["random/toy"]
    assert status == "failed"
    assert f"{file}, line 1" in error


def test_empty_records_are_not_taken_for_finished(benchmark: Benchmark, tmp_path: Path) -> None:
    benchmark = replace(benchmark, evaluators={"toy": Toy()})
    Runner(benchmark, tmp_path).run()
    (file,) = tmp_path.rglob(RECORDS_FILE)
    whole = file.read_text()
    file.write_bytes(b"")
    assert statuses(Runner(benchmark, tmp_path)) == {"random/toy": "done"}
    assert len(file.read_text().splitlines()) == len(whole.splitlines()) == 2


def test_records_of_another_job_are_named_and_kept(benchmark: Benchmark, tmp_path: Path) -> None:
    for number, shift in enumerate((0, 1)):
        Runner(replace(benchmark, evaluators={"toy": Toy(shift=shift)}), tmp_path / str(number)).run()
    (one,), (two,) = ((tmp_path / str(number)).rglob(RECORDS_FILE) for number in (0, 1))
    one.write_bytes(two.read_bytes())
    status, error = errors(Runner(replace(benchmark, evaluators={"toy": Toy()}), tmp_path / "0"))["random/toy"]
    assert status == "failed"
    assert f"{one} holds records of another job" in error
    assert one.read_bytes() == two.read_bytes()


def test_the_same_names_and_sizes_with_other_pixels_are_measured_again(
    benchmark: Benchmark, own_photos: Data, tmp_path: Path
) -> None:
    benchmark = replace(benchmark, data=own_photos, evaluators={"toy": Toy()})
    assert statuses(Runner(benchmark, tmp_path / "out")) == {"random/toy": "done"}
    assert statuses(Runner(benchmark, tmp_path / "out")) == {"random/toy": "skipped"}
    file = Path(own_photos.root, "val", "coffee", "003.jpg")
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    assert statuses(Runner(benchmark, tmp_path / "out")) == {"random/toy": "done"}
    assert len({record.key for record in read_records(tmp_path / "out")}) == 2


def test_a_classifier_of_another_backbone_is_not_attacked(benchmark: Benchmark, tmp_path: Path) -> None:
    Runner(replace(benchmark, evaluators={"tuning": Finetune()}), tmp_path).run()
    (folder,) = tmp_path.rglob("classifier")
    found = load_checkpoint(folder)
    save_checkpoint(folder, found.state, replace(found.meta, parent="f" * 64))
    status, error = errors(Runner(benchmark, tmp_path))["random/attack"]
    assert status == "failed"
    assert f"{folder} was not fine-tuned from random; delete {folder.parent}" in error


@pytest.mark.parametrize(
    ("subjects", "evaluators", "message"),
    [
        (("a b", "a_b"), ("toy",), "subjects 'a b' and 'a_b' would share the folder a_b; rename one"),
        (("a",), ("t/x", "t_x"), "evaluators 't/x' and 't_x' would share the folder t_x; rename one"),
        (("a",), ("pretrain",), "evaluators 'pre-training' and 'pretrain' would share the folder pretrain"),
    ],
)
def test_names_that_would_share_a_folder_are_refused_before_anything_runs(
    benchmark: Benchmark, tmp_path: Path, subjects: tuple[str, ...], evaluators: tuple[str, ...], message: str
) -> None:
    source = benchmark.subjects["random"]
    clashing = replace(benchmark, subjects=dict.fromkeys(subjects, source), evaluators=dict.fromkeys(evaluators, Toy()))
    with pytest.raises(ValueError, match=message):
        Runner(clashing, tmp_path / "out").run()
    with pytest.raises(ValueError, match=message):
        cli.run_benchmark(clashing, tmp_path / "out", plan=True)
    assert CALLS == []


def test_debugging_raises_instead(benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIM_BENCH_DEBUG", "1")
    BROKEN.add("Toy")
    with pytest.raises(ValueError, match="broken"):
        Runner(replace(benchmark, evaluators={"toy": Toy()}), tmp_path).run()


def test_random_weights_follow_the_seed_alone(tiny_arch: Arch) -> None:
    source = RandomInit(arch=tiny_arch)
    torch.manual_seed(5)
    first = random_checkpoint(source, 0)
    torch.rand(3)
    assert random_checkpoint(source, 0).meta == first.meta
    assert random_checkpoint(source, 1).meta.hash != first.meta.hash
    assert first.meta.epochs is None


def test_only_knobs_that_differ_are_listed_as_passed() -> None:
    assert protocol_info(Toy()).passed == {}
    assert protocol_info(Toy(shift=2)).passed == {"shift": 2}
    assert protocol_info(Toy(shift=2)).settings == {"type": "Toy", "shift": 2}


@given(st.text())
def test_a_safe_name_never_leaves_its_parent(name: str) -> None:
    try:
        safe = safe_name(name)
    except ValueError:
        return
    assert safe not in ("", ".", "..")
    assert not set(safe) & set('/\\\0\n:*?"<>| ')
    assert safe.isascii()
    assert (Path("/a/b") / safe).parent == Path("/a/b")
    assert os.path.normpath(f"/a/b/{safe}") == f"/a/b/{safe}"
    assert safe_name(safe) == safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [("CIM", "CIM"), ("ViT-B_16+x.1", "ViT-B_16+x.1"), ("../../etc", "_.._etc"), ("a/b", "a_b"), (".hidden", "hidden")],
)
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["", ".", "..", "....."])
def test_a_name_of_which_nothing_is_left_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a folder"):
        safe_name(name)


def test_an_output_folder_that_cannot_be_written_is_named_before_any_work(benchmark: Benchmark, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write to the output folder") as caught:
        Runner(benchmark, tmp_path / "file" / "out").run()
    assert str(tmp_path / "file" / "out") in str(caught.value)
    assert "choose another with --output" in str(caught.value)
    assert CALLS == []
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\nlines"), "two lines"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError("boom"), "RuntimeError: boom"),
        (ValueError(""), "ValueError:"),
        (FileNotFoundError(2, "No such file", "there"), "there: No such file"),
        (OSError(28, "cannot write x: full"), "cannot write x: full"),
        (OSError("bare"), "bare"),
    ],
)
def test_an_error_as_one_sentence(error: Exception, text: str) -> None:
    assert one_sentence(error) == text


def test_an_image_error_can_cross_processes() -> None:
    again = pickle.loads(pickle.dumps(ImageError("cannot read x")))
    assert isinstance(again, ImageError)
    assert str(again) == "cannot read x"


def test_damage_elsewhere_in_the_output_folder_costs_no_table(
    benchmark: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = replace(benchmark, evaluators={"toy": Toy()})
    Runner(benchmark, tmp_path).run()
    (file,) = tmp_path.rglob(RECORDS_FILE)
    other = tmp_path / "other" / "toy-0123456789ab" / RECORDS_FILE
    other.parent.mkdir(parents=True)
    other.write_text("{")
    assert cli.run_benchmark(benchmark, tmp_path) == 1
    printed = capsys.readouterr()
    assert "toy: top1" in printed.out
    assert [line for line in printed.err.splitlines() if line.startswith(f"cim-bench: {other}, line 1: ")]
    assert file.exists()
