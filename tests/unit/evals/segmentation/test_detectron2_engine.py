"""What needs no detectron2; tests/detectron2 has the rest."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import pytest

from cim_bench.engine.schedule import Steps, StepSampler
from cim_bench.evals.segmentation import detectron2_engine
from cim_bench.evals.segmentation.detectron2_engine import check, single_ways
from cim_bench.evals.segmentation.detectron2_parts import Order
from cim_bench.evals.segmentation.upernet import SegmentationUPerNet
from cim_bench.spec import IterationTraining, Machine, SlidingTest

TRAINING = IterationTraining(iterations=4, effective_batch=4, lr=1e-3)


def test_without_detectron2_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, cpu: Machine) -> None:
    whole = importlib.import_module

    def lacks(name: str) -> ModuleType:
        if name.startswith("detectron2"):
            raise ModuleNotFoundError("No module named 'detectron2'")
        return whole(name)

    monkeypatch.setattr(importlib, "import_module", lacks)
    with pytest.raises(ValueError, match=r"pip install --no-build-isolation .*; or set engine to own$") as caught:
        check(TRAINING, cpu)
    assert "\n" not in str(caught.value)
    assert "setuptools<81" in str(caught.value)


@pytest.mark.parametrize(
    ("training", "machine", "message"),
    [
        ({}, {"micro_batch": 2}, "one pass a step: set machine.micro_batch to 4 or more, or engine to own"),
        ({"precision": "bf16"}, {}, "AMPTrainer needs a GPU for training.precision 'bf16'; set fp32, or engine to own"),
    ],
)
def test_what_its_trainers_do_not_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, cpu: Machine, training: dict[str, str], machine: dict[str, int], message: str
) -> None:
    monkeypatch.setattr(detectron2_engine, "load_detectron2", lambda: None)
    check(TRAINING, cpu)
    with pytest.raises(ValueError, match=message):
        check(replace(TRAINING, **training), replace(cpu, **machine))  # type: ignore[arg-type]


def test_each_way_of_testing_alone() -> None:
    test = SlidingTest(crop=64, strides=(43, 64), whole=True)
    assert [(one.strides, one.whole) for one in single_ways(test)] == [((43,), False), ((64,), False), ((), True)]
    assert single_ways(replace(test, strides=(64,), whole=False)) == [replace(test, strides=(64,), whole=False)]


def test_samples_come_in_the_order_of_the_own_engine() -> None:
    steps = Steps.plan(6, TRAINING, Machine(micro_batch=4), 1)
    batches = StepSampler(6, steps, batch=4, seed=3, start=1, rank=0, processes=1)
    order = Order(batches)
    assert list(order) == [where for batch in batches for where in batch]
    assert len(list(order)) == len(order) == 12


def test_only_the_engine_imports_detectron2_and_not_before_it_is_used() -> None:
    assert SegmentationUPerNet().engine == "own"
    code = "import sys; import cim_bench.evals.segmentation.upernet; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "detectron2" not in run.stdout.split()
