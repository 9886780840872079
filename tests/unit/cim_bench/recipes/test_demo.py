"""The demo compares methods on equal terms, and never measures what pretexts learned from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cim_bench.benchmark import Pretraining
from cim_bench.jobs.plan import make_plan
from cim_bench.recipes.demo import demo
from cim_bench.spec import chosen_data


def test_methods_differ_in_pretext_and_epochs_alone() -> None:
    trained = [subject for subject in demo().subjects.values() if isinstance(subject, Pretraining)]
    assert {recipe.pretext.method for recipe in trained} == {"CIM", "MAE", "SimMIM"}
    first = trained[0]
    for recipe in trained:
        schedule = replace(recipe.training, epochs=first.training.epochs, warmup_epochs=first.training.warmup_epochs)
        assert replace(recipe, pretext=first.pretext, training=schedule) == first
        assert recipe.training.peak_lr == pytest.approx(2e-3)
        assert recipe.training.warmup_epochs * 12 == pytest.approx(recipe.training.epochs)
    assert all(getattr(subject, "arch", None) == first.arch for subject in demo().subjects.values())


def test_nothing_is_measured_on_the_crops_that_pretexts_see() -> None:
    benchmark = demo()
    sets = {data.root for e in benchmark.evaluators.values() for data, _ in e.reads(benchmark.data)}
    trained = [subject for subject in benchmark.subjects.values() if isinstance(subject, Pretraining)]
    learned = {chosen_data(recipe.data, benchmark.data).root for recipe in trained}
    assert learned == {"photos-things"}
    assert not learned & sets


def test_every_subject_passes_through_every_evaluator() -> None:
    benchmark = demo()
    jobs = {job.name for job in make_plan(benchmark)}
    assert {f"{subject}/{evaluator}" for subject in benchmark.subjects for evaluator in benchmark.evaluators} <= jobs
