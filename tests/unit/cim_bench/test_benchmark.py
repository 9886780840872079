from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cim_bench import registry
from cim_bench.benchmark import Benchmark, Pretraining, RandomInit
from cim_bench.common.hashing import stable_hash
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.evals.knn import KNN
from cim_bench.registry import load_recipe
from cim_bench.spec import Arch, Data, Training, settings


@pytest.fixture
def benchmark() -> Benchmark:
    return Benchmark(
        name="toy",
        subjects={"random": RandomInit(arch=Arch(name="vit_tiny_patch16_224", options={"patch_size": 8}))},
        evaluators={"knn": KNN(k=(1, 5))},
        data=Data(name="toy", root="somewhere"),
    )


@pytest.mark.parametrize("name", registry.RECIPES)
def test_every_registered_recipe_builds_one_frozen_dataclass(name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, Benchmark | Pretraining | Evaluator)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.seed = 3  # type: ignore[union-attr,misc]
    assert load_recipe(name) == recipe


@pytest.mark.parametrize("name", registry.RECIPES)
def test_a_docstring_says_command_hardware_and_expectation(name: str) -> None:
    text = registry.load(registry.target("recipes", name)).__doc__
    assert [word for word in ("Command", "Hardware", "Expected") if word not in text] == []
    assert name in text


@pytest.mark.parametrize("name", registry.RECIPES)
def test_the_settings_of_a_recipe_are_json(name: str) -> None:
    made = settings(load_recipe(name))
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert stable_hash(made) == stable_hash(settings(load_recipe(name)))


def test_settings_tell_two_plugins_with_equal_fields_apart() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Other(KNN):
        pass

    assert settings(Other()) != settings(KNN())
    assert settings(KNN())["type"] == "KNN"
    assert settings(KNN())["k"] == [10, 20, 100, 200]


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(min_size=1), NUMBERS | st.text(), max_size=4))
def test_an_architecture_prints_its_options_in_one_order(options: dict[str, int | float | str]) -> None:
    backwards = dict(reversed(options.items()))
    assert str(Arch(name="a", options=options)) == str(Arch(name="a", options=backwards))


def test_a_training_schedule_needs_its_numbers() -> None:
    with pytest.raises(TypeError, match="epochs"):
        Training(effective_batch=1, base_lr=1.0)  # type: ignore[call-arg]
