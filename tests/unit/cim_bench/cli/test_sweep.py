"""Sweeps: copies of an evaluator at several values, from the command line to the jobs."""

from __future__ import annotations

import pytest

from cim_bench.cli.arguments import build_parser
from cim_bench.cli.parsing import parse_run
from cim_bench.jobs.plan import make_plan


def swept(*arguments: str, fields: tuple[str, ...] = ()) -> list[str]:
    options = build_parser().parse_args(["run", "demo", "--sweep", *arguments])
    return [job.name for job in make_plan(parse_run(options, fields)) if job.subject == "CIM-ViT"]


def test_each_value_is_an_evaluator_for_the_subjects_of_the_first() -> None:
    options = build_parser().parse_args(["run", "cifar10", "--sweep", "finetune.training.base_lr", "1e-3", "2e-3"])
    benchmark = parse_run(options, ["--evaluators.finetune.training.epochs", "9"])
    names = [name for name in benchmark.evaluators if name.startswith("finetune-")]
    assert names == ["finetune-base_lr-1e-3", "finetune-base_lr-2e-3"]
    made = [benchmark.evaluators[name] for name in names]
    assert [one.training.base_lr for one in made] == [1e-3, 2e-3]  # type: ignore[attr-defined]
    assert [one.training.epochs for one in made] == [9, 9]  # type: ignore[attr-defined]
    assert benchmark.only["finetune-base_lr-1e-3"] == ("*-ViT",)
    assert "finetune" not in benchmark.evaluators


def test_all_others_stay() -> None:
    jobs = swept("knn.temperature", "0.05", "0.07", "0.1")
    assert [job for job in jobs if "/knn" in job] == [f"CIM-ViT/knn-temperature-{t}" for t in ("0.05", "0.07", "0.1")]
    assert "CIM-ViT/finetune" in jobs


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nosuch.training.lr", "1", "2"), "names none of the evaluators knn"),
        (("knn", "1", "2"), "begins with EVALUATOR.SETTING"),
        (("knn.temperature", "0.07", "0.07"), "has 1 values; give two or more different ones"),
        (("knn.nosuch", "1", "2"), "nosuch"),
        (("knn.temperature", "0.07", "-1"), "temperature is -1"),
    ],
)
def test_what_makes_no_sweep_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        swept(*arguments)
