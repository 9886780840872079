"""A pre-training that is not better than a prediction without learning says so: in its log, checkpoint and records."""

from __future__ import annotations

from pathlib import Path

import pytest

from cim_bench.benchmark import Benchmark, Pretraining
from cim_bench.data.images import ImageSet
from cim_bench.evals.knn import KNN
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs.pretraining import held_out, pretrain, unlearned
from cim_bench.jobs.runner import Runner
from cim_bench.models.checkpoint import load_checkpoint
from cim_bench.pretrain.simmim import SimMIM, SimMIMModel
from cim_bench.records.store import read_records
from cim_bench.spec import Arch, Data, Machine, Training

WARNING = "has not learned its pretext: held-out loss "


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"val_loss": 1.891, "val_reference_loss": 1.954}, f"{WARNING}1.891, and 1.954 for a blob"),  # 3 % better
        ({"val_loss": 2.0, "val_reference_loss": 1.0}, f"{WARNING}2.000, and 1.000 for a blob"),
        ({"val_loss": 0.95, "val_reference_loss": 1.0}, ""),
        ({"val_loss": 7.0}, ""),  # a method that knows no reference
    ],
)
def test_margin(metrics: dict[str, float], words: str) -> None:
    assert unlearned(metrics, "a blob") == words


@pytest.fixture
def recipe(tiny_arch: Arch, small_photos: Data, cpu: Machine) -> Pretraining:
    """Three steps: nothing can be learned."""
    training = Training(epochs=1, effective_batch=16, base_lr=1e-6)
    return Pretraining(pretext=SimMIM(mask_patch=8), arch=tiny_arch, data=small_photos, training=training, machine=cpu)


def test_warning_of_log_checkpoint_and_record(
    recipe: Pretraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = Benchmark(
        name="toys",
        subjects={"SimMIM": recipe},
        evaluators={"knn": KNN(k=(5,), feature="mean_patch")},
        data=recipe.data,
        machine=recipe.machine,
        executor=LocalExecutor(slots=1),
    )
    Runner(benchmark, tmp_path).run()
    meta = load_checkpoint(next(tmp_path.rglob("meta.json")).parent).meta
    assert meta.warning.startswith(WARNING)
    assert meta.warning.endswith(SimMIMModel.reference)
    assert meta.held_out["val_reference_loss"] > 0
    assert f"pretrain SimMIM: {meta.warning}" in capsys.readouterr().err
    (record,) = read_records(tmp_path)
    assert meta.warning in record.warnings


def test_a_reference_that_cannot_be_computed(recipe: Pretraining, monkeypatch: pytest.MonkeyPatch) -> None:
    model = recipe.pretext.build(recipe.arch)
    broken = lambda *_: {"val_loss": 1.0, "val_reference_loss": float("nan")}  # noqa: E731
    monkeypatch.setattr(type(model), "held_out_metrics", broken)
    with pytest.raises(
        ValueError, match=r"the reference of SimMIM, .*, has a loss of nan on .* val; change the pretext"
    ):
        held_out(model, recipe, ImageSet(recipe.data, "train"))


def test_held_out_draws_do_not_move_training(
    recipe: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights with validation and without."""
    first = pretrain(recipe, tmp_path / "a", "a")
    monkeypatch.setattr("cim_bench.jobs.pretraining.held_out", lambda *_: {"val_loss": 1.0})
    second = pretrain(recipe, tmp_path / "b", "b")
    assert first.hash == second.hash
    assert second.held_out == {"val_loss": 1.0}
    assert second.warning == ""
