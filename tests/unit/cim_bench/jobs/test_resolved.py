"""The benchmark on disk: what comes back is equal, and nothing but known classes is ever made from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from cim_bench import Evaluator, registry
from cim_bench.benchmark import Benchmark
from cim_bench.contracts.executor import Job
from cim_bench.jobs.resolved import loads, read_benchmark, write_benchmark
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.worker import open_runner
from cim_bench.recipes.demo import demo


@pytest.mark.parametrize("name", ["demo", "cifar10", "paper"])
def test_recipes_come_back_equal(name: str, tmp_path: Path) -> None:
    benchmark = registry.load_recipe(name)
    file = write_benchmark(benchmark, tmp_path)
    again = read_benchmark(file)
    assert again == benchmark
    assert type(again.executor) is type(benchmark.executor)
    assert loads(benchmark) == []
    assert write_benchmark(again, tmp_path) == file
    assert write_benchmark(replace(again, seed=1), tmp_path) != file


def test_floats_come_back_to_the_last_bit(tmp_path: Path) -> None:
    adversarial = replace(demo().evaluators["adversarial"], eps=(1 / 255, 0.1 + 0.2))  # type: ignore[call-arg]
    benchmark = replace(demo(), evaluators={"a": adversarial})
    assert read_benchmark(write_benchmark(benchmark, tmp_path)).evaluators["a"] == adversarial


def test_a_subject_does_not_take_the_folder_of_the_benchmarks(tmp_path: Path) -> None:
    subject = next(iter(demo().subjects.values()))
    with pytest.raises(ValueError, match="subject 'benchmarks' would have the folder of the written benchmarks"):
        write_benchmark(replace(demo(), subjects={"benchmarks": subject}), tmp_path)


@dataclass(frozen=True, kw_only=True)
class Unregistered(Evaluator):
    """Of this test alone."""

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"


def test_a_class_that_other_processes_cannot_import_runs_here_alone(tmp_path: Path) -> None:
    benchmark = replace(demo(), evaluators={"mine": Unregistered()}, only={})
    reason = "Unregistered is defined in .*test_resolved, which other processes cannot import"
    with pytest.raises(ValueError, match=reason):
        loads(benchmark)
    runner = Runner(replace(benchmark, executor=replace(benchmark.executor, slots=2)), tmp_path)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=rf"executor.slots is 2, but {reason}; set it to 1"):
        runner.run()


RECIPE = '''
from dataclasses import dataclass, replace
from typing import ClassVar

from cim_bench import Evaluator, registry


@dataclass(frozen=True, kw_only=True)
class Mine(Evaluator):
    """A protocol of one's own."""

    version: ClassVar[int] = 1
    needs: ClassVar[str] = "backbone"


def recipe():
    return replace(registry.load_recipe("demo"), evaluators={"mine": Mine()}, only={})
'''


def test_a_recipe_file_is_loaded_by_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    source = tmp_path / "own.py"
    source.write_text(RECIPE)
    benchmark: Benchmark = registry.load_recipe(str(source))
    runner = Runner(benchmark, tmp_path / "out")
    command = runner.command([Job(name="s/mine", kind="evaluate", subject="s")])
    assert command[-3:] == ["--load", str(source), "s/mine"]
    file = Path(command[command.index("job") + 1])
    monkeypatch.delitem(sys.modules, "cim_bench_recipe_own")
    with pytest.raises(ValueError, match=rf"{file}: it uses cim_bench_recipe_own:Mine, which is not registered"):
        open_runner(file)
    assert type(open_runner(file, [str(source)]).benchmark.evaluators["mine"]).__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("os:system", "os:system is not a pretext, evaluator or executor"),
        ("subprocess:Popen", "is not a pretext, evaluator or executor"),
        ("nosuch:Thing", "which is not registered; give --load"),
    ],
)
def test_no_other_class_is_made_from_a_file(name: str, words: str, tmp_path: Path) -> None:
    file = write_benchmark(demo(), tmp_path)
    raw = json.loads(file.read_text())
    raw["fields"]["evaluators"]["map"]["knn"]["class"] = name
    file.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=words):
        read_benchmark(file)


@pytest.mark.parametrize("content", ["", "[]", '{"class": "Data"}', '{"class": "Data", "fields": {}}', "not json"])
def test_a_file_that_is_none_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "benchmarks" / "x.json"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(ValueError, match=f"{file}"):
        read_benchmark(file)
    with pytest.raises(ValueError, match="is not in a folder benchmarks/"):
        open_runner(tmp_path / "x.json")
