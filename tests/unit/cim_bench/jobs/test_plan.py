from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cim_bench.benchmark import Benchmark, Pretraining, RandomInit
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.contracts.pretext import Pretext
from cim_bench.jobs.plan import left_out, make_plan, select_jobs
from cim_bench.models.backbone import Backbone
from cim_bench.records.measurement import Measurement
from cim_bench.spec import Arch, Data, FromCheckpoint, Training


@dataclass(frozen=True, kw_only=True)
class Probe(Evaluator):
    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Finetune(Probe):
    """Goes by the name ``finetune``, like the registered one."""


@dataclass(frozen=True, kw_only=True)
class Attack(Probe):
    needs: ClassVar[Literal["backbone", "classifier"]] = "classifier"


@dataclass(frozen=True, kw_only=True)
class Toy(Pretext):
    method: ClassVar[str] = "toy"
    version: ClassVar[int] = 1


SUBJECTS: dict[str, Pretraining | FromCheckpoint | RandomInit] = {
    "trained": Pretraining(
        pretext=Toy(), arch=Arch(), data=Data(), training=Training(epochs=1, effective_batch=1, base_lr=1.0)
    ),
    "random": RandomInit(arch=Arch()),
    "given": FromCheckpoint(path="ck"),
}
EVALUATORS: dict[str, Evaluator] = {"attack": Attack(), "probe": Probe(), "tuning": Finetune(), "shift": Attack()}


def benchmark(subjects: list[str], evaluators: list[str]) -> Benchmark:
    return Benchmark(
        name="b",
        subjects={name: SUBJECTS[name] for name in subjects},
        evaluators={name: EVALUATORS[name] for name in evaluators},
        data=Data(),
    )


def test_jobs_of_each_subject_in_order_with_their_needs() -> None:
    plan = make_plan(benchmark(["trained", "random"], ["attack", "probe", "tuning"]))
    assert [(job.name, job.needs) for job in plan] == [
        ("trained/pretrain", ()),
        ("trained/probe", ("trained/pretrain",)),
        ("trained/tuning", ("trained/pretrain",)),
        ("trained/attack", ("trained/pretrain", "trained/tuning")),
        ("random/probe", ()),
        ("random/tuning", ()),
        ("random/attack", ("random/tuning",)),
    ]
    assert [job.kind for job in plan] == ["pretrain", *["evaluate"] * 6]
    assert [(job.subject, job.evaluator) for job in plan[:2]] == [("trained", ""), ("trained", "probe")]


def test_a_classifier_without_finetuning_is_refused() -> None:
    with pytest.raises(ValueError, match="attack needs a fine-tuned classifier; add a finetune evaluator"):
        make_plan(benchmark(["random"], ["probe", "attack"]))


def test_an_evaluator_runs_for_the_subjects_it_is_meant_for_and_heads_come_from_their_own_finetuning() -> None:
    other = {"other": Finetune(), **EVALUATORS}
    chosen = replace(
        benchmark(["trained", "random"], []),
        evaluators=other,
        only={"other": ("tra*",), "tuning": ("random",), "probe": ("random",), "shift": ("trained",)},
    )
    assert [(job.name, job.needs[-1:]) for job in make_plan(chosen)] == [
        ("trained/pretrain", ()),
        ("trained/other", ("trained/pretrain",)),
        ("trained/attack", ("trained/other",)),
        ("trained/shift", ("trained/other",)),
        ("random/probe", ()),
        ("random/tuning", ()),
        ("random/attack", ("random/tuning",)),
    ]


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ({"prob": ("random",)}, "only names 'prob', which is no evaluator of attack, probe"),
        ({"probe": ("randm*",)}, "only.probe has 'randm\\*', which fits no subject of random"),
    ],
)
def test_a_restriction_to_nothing_is_refused(only: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_plan(replace(benchmark(["random"], ["attack", "probe", "tuning"]), only=only))


def test_selected_jobs_come_with_what_they_need_in_the_plans_order() -> None:
    plan = make_plan(benchmark(["trained", "random"], ["attack", "probe", "tuning"]))
    chosen = [job.name for job in select_jobs(plan, ["random/pro*", "trained/attack"])]
    assert chosen == ["trained/pretrain", "trained/tuning", "trained/attack", "random/probe"]
    assert select_jobs(plan, ()) == plan
    with pytest.raises(ValueError, match=r"--jobs \*/atack fits no job of trained/pretrain, trained/probe"):
        select_jobs(plan, ["random/*", "*/atack"])
    with pytest.raises(ValueError, match=r"for MAE-B has no checkpoint; give --subjects\.MAE-B\.path"):
        select_jobs(plan, ["MAE-*/probe"], absent=["MP3", "MAE-B"])


def test_a_subject_whose_checkpoint_nobody_gave_has_no_jobs() -> None:
    absent = replace(benchmark(["random"], ["probe"]), subjects={"MP3": FromCheckpoint(method="MP3")})
    assert make_plan(absent) == []


def test_what_a_classifier_does_not_pass_through_is_said() -> None:
    """Unless a backbone was asked for: then all jobs are planned, and opening the file refuses it."""
    tuned = FromCheckpoint(path="tuned.pth", kind="classifier")
    chosen = replace(benchmark(["random"], ["attack", "probe", "tuning"]), subjects={"t": tuned})
    assert [job.name for job in make_plan(chosen)] == ["t/attack"]
    assert left_out(chosen, {"t"}) == ["left out for t, a fine-tuned classifier: probe, tuning (for backbones)"]
    assert left_out(chosen, set()) == []
    asked = replace(chosen, subjects={"t": replace(tuned, kind="backbone")})
    assert [job.name for job in make_plan(asked)] == ["t/probe", "t/tuning", "t/attack"]
    assert left_out(asked, {"t"}) == []


def test_a_benchmark_without_evaluators_only_pretrains() -> None:
    assert [job.name for job in make_plan(benchmark(["trained", "random"], []))] == ["trained/pretrain"]


@given(
    st.permutations(list(SUBJECTS)).flatmap(lambda names: st.integers(0, 3).map(lambda n: names[:n])),
    st.permutations(list(EVALUATORS)),
)
def test_needs_come_before_those_who_need_them_in_every_order(subjects: list[str], evaluators: list[str]) -> None:
    plan = make_plan(benchmark(subjects, evaluators))
    names = [job.name for job in plan]
    assert len(set(names)) == len(names) == len(subjects) * len(evaluators) + ("trained" in subjects)
    for position, job in enumerate(plan):
        assert set(job.needs) <= set(names[:position])
        assert all(need.startswith(f"{job.subject}/") for need in job.needs)
        classifier = job.kind == "evaluate" and EVALUATORS[job.evaluator].needs == "classifier"
        assert (f"{job.subject}/tuning" in job.needs) == classifier
