"""Recipes by name and from users' files, and their fields overridden by dotted names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.cli.overrides import override
from cim_bench.evals.knn import KNN
from cim_bench.registry import load_recipe
from cim_bench.spec import Arch, Data, settings


@pytest.fixture
def benchmark() -> Benchmark:
    return Benchmark(
        name="toy",
        subjects={"random": RandomInit(arch=Arch(name="vit_tiny_patch16_224", options={"patch_size": 8}))},
        evaluators={"knn": KNN(k=(1, 5))},
        data=Data(name="toy", root="somewhere"),
    )


def test_no_override_changes_nothing(benchmark: Benchmark) -> None:
    assert override(benchmark, [], "prog") == benchmark


def test_an_override_changes_nested_values_and_nothing_else(benchmark: Benchmark) -> None:
    arguments = "--data.root there --seed 7 --machine.device cpu --evaluators.knn.k 3 9 --evaluators.knn.temperature 1"
    changed = override(benchmark, arguments.split(), "prog")
    assert changed == replace(
        benchmark,
        data=replace(benchmark.data, root="there"),
        seed=7,
        machine=replace(benchmark.machine, device="cpu"),
        evaluators={"knn": KNN(k=(3, 9), temperature=1.0)},
    )


def test_an_override_reaches_into_a_subject_and_its_options(benchmark: Benchmark) -> None:
    changed = override(
        benchmark,
        ["--subjects.random.arch.image-size", "32", "--subjects.random.arch.options.patch-size", "4"],
        "prog",
    )
    subject = changed.subjects["random"]
    assert isinstance(subject, RandomInit)
    assert subject.arch == Arch(name="vit_tiny_patch16_224", image_size=32, options={"patch_size": 4})


def test_an_override_of_every_kind_of_registered_recipe() -> None:
    arguments = "--training.epochs 3 --training.warmup-epochs 1 --pretext.num-exemplars 2 --export ema"
    pretraining = override(load_recipe("cim_vit_base"), arguments.split(), "p")
    assert (pretraining.training.epochs, pretraining.pretext.num_exemplars, pretraining.export) == (3, 2, "ema")
    given = {"epochs": 40, "warmup_epochs": 2.0}
    assert replace(pretraining.training, **given) == replace(load_recipe("cim_vit_base").training, **given)
    demo = override(
        load_recipe("demo"), ["--subjects.CIM-ViT.training.epochs", "3", "--subjects.CIM-ViT.data.root", "x"], "p"
    )
    assert demo.subjects["CIM-ViT"].training.epochs == 3
    assert demo.subjects["CIM-ViT"].data.root == "x"
    assert demo.data == load_recipe("demo").data


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--data.rot", "x"], "--data.rot"),
        (["--nonsense"], "--nonsense"),
        (["--seed", "many"], "many"),
        (["--seed", "1.5"], "1.5"),
        (["--machine.device", "tpu"], "tpu"),
        (["--evaluators.knn.k", "a"], "a"),
        (["--seed"], "--seed"),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_name_or_type_is_one_sentence(
    benchmark: Benchmark, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        override(benchmark, arguments, "cim-bench run toy")
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith("(`cim-bench run toy --help` lists every field)")
    assert not set(text) & set("│╭╮╰╯")
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--seed -1", "Benchmark.seed is -1; it must be an integer, at least 0 and at most 4294967295"),
        ("--machine.workers -3", "machine.workers is -3; it must be an integer, at least 0"),
        ("--evaluators.knn.k 5 0", "evaluators.knn.k[1] is 0; it must be an integer, at least 1"),
        ("--evaluators.knn.temperature nan", "evaluators.knn.temperature is nan; it must be a number, at least 0.0001"),
        (
            "--subjects.random.arch.image-size 30",
            "subjects.random.arch.image_size 30 does not divide by options.patch_size 8; choose a multiple",
        ),
    ],
)
def test_a_value_out_of_range_is_named_by_its_place(benchmark: Benchmark, arguments: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{sentence} (`cim-bench run toy --help` lists every field)")):
        override(benchmark, arguments.split(), "cim-bench run toy")


def test_fields_of_several_settings_are_checked_together() -> None:
    sentence = "subjects.MAE-ViT.training.warmup_epochs is 90.0, beyond subjects.MAE-ViT.training.epochs 62; lower it"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        override(load_recipe("demo"), ["--subjects.MAE-ViT.training.warmup-epochs", "90"], "prog")


def test_help_is_not_an_error(benchmark: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        override(benchmark, ["--help"], "cim-bench run toy")
    assert caught.value.code == 0
    assert "--evaluators.knn.temperature" in capsys.readouterr().out


USER = '''
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from cim_bench import Arch, Benchmark, Data, Evaluator, RandomInit


@dataclass(frozen=True, kw_only=True)
class Mine(Evaluator):
    """A protocol of one's own."""

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"
    knob: float = 0.5

    def run(self, model: Any, ctx: Any) -> Iterator[Any]:
        yield from ()


def FUNCTION() -> Benchmark:
    """Mine."""
    return Benchmark(
        name="mine", subjects={"random": RandomInit(arch=Arch())}, evaluators={"mine": Mine()}, data=Data(root="r")
    )
'''


@pytest.mark.parametrize("function", ["my_recipe", "recipe"])
def test_a_file_of_a_user_is_a_recipe_and_can_be_overridden(tmp_path: Path, function: str) -> None:
    file = tmp_path / "my_recipe.py"
    file.write_text(USER.replace("FUNCTION", function))
    made = load_recipe(str(file))
    assert isinstance(made, Benchmark)
    assert settings(made.evaluators["mine"]) == {"type": "Mine", "knob": 0.5}
    changed = override(made, ["--data.root", "there", "--evaluators.mine.knob", "0.25"], "prog")
    assert changed.data.root == "there"
    assert settings(changed.evaluators["mine"])["knob"] == 0.25


def test_two_files_of_one_name_are_two_recipes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "json.py").write_text(f"def recipe():\n    return {name!r}\n")
    assert [load_recipe(str(tmp_path / name / "json.py")) for name in ("one", "two")] == ["one", "two"]
    import json as standard

    assert standard is json


def test_a_file_without_the_function_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def other():\n    return 1\n")
    with pytest.raises(ValueError, match=r"mine\.py defines neither mine\(\) nor recipe\(\)"):
        load_recipe(str(file))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no recipe file at .*none\.py; give a registered recipe \(.*demo"):
        load_recipe(str(tmp_path / "none.py"))


def test_an_unknown_recipe_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"no recipe is called 'demoo'; choose one of .*demo"):
        load_recipe("demoo")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("def recipe(:\n", "line 1: SyntaxError: "),
        ("import nothing_at_all\n", "line 1: ModuleNotFoundError: No module named 'nothing_at_all'"),
        ("def recipe():\n    names = {}\n    return names['a']\n", "line 3: KeyError: 'a'"),
        ("import json\n\ndef recipe():\n    return json.loads('{')\n", "line 4: JSONDecodeError: "),
    ],
)
def test_a_file_that_raises_names_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(text)
    for name in ("mine.py", str(tmp_path / "mine.py")):
        with pytest.raises(ValueError, match=f"mine.py, {words}") as caught:
            load_recipe(name)
        assert "\n" not in str(caught.value)
