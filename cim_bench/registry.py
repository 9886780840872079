"""Names of everything that plugs in: lazy ``"module:attribute"`` strings, imported only when used.

Other people's packages add entries through the entry-point groups of `GROUPS`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

PRETEXTS: Mapping[str, str] = {
    "cim": "cim_bench.pretrain.cim.method:CIM",
    "mae": "cim_bench.pretrain.mae:MAE",
    "simmim": "cim_bench.pretrain.simmim:SimMIM",
}
EVALUATORS: Mapping[str, str] = {
    "adversarial": "cim_bench.evals.adversarial:Adversarial",
    "corruptions": "cim_bench.evals.corruptions.protocol:Corruptions",
    "finetune": "cim_bench.evals.finetune:Finetune",
    "knn": "cim_bench.evals.knn:KNN",
    "segmentation_knn": "cim_bench.evals.segmentation.knn:SegmentationKNN",
    "segmentation_linear": "cim_bench.evals.segmentation.linear:SegmentationLinear",
    "linear_probe": "cim_bench.evals.linear_probe:LinearProbe",
    "robustbench": "cim_bench.evals.robustbench.protocol:RobustBench",
    "segmentation_upernet": "cim_bench.evals.segmentation.upernet:SegmentationUPerNet",
    "shifts": "cim_bench.evals.shifts:Shift",
}
EXECUTORS: Mapping[str, str] = {"local": "cim_bench.executors.local:LocalExecutor"}
RECIPES: Mapping[str, str] = {
    "demo": "cim_bench.recipes.demo:demo",
    "cifar10": "cim_bench.recipes.cifar10:cifar10",
    "paper": "cim_bench.recipes.paper:paper",
    "cim_vit_small": "cim_bench.recipes.pretraining:cim_vit_small",
    "cim_vit_base": "cim_bench.recipes.pretraining:cim_vit_base",
    "cim_resnet50": "cim_bench.recipes.pretraining:cim_resnet50",
    "mae_vit_small": "cim_bench.recipes.pretraining:mae_vit_small",
    "mae_vit_base": "cim_bench.recipes.pretraining:mae_vit_base",
    "simmim_vit_base": "cim_bench.recipes.pretraining:simmim_vit_base",
    "simmim_vit_base_plain": "cim_bench.recipes.pretraining:simmim_vit_base_plain",
    "simmim_vit_small_plain": "cim_bench.recipes.pretraining:simmim_vit_small_plain",
    "simmim_resnet50": "cim_bench.recipes.pretraining:simmim_resnet50",
    "finetune_cim_vit_small": "cim_bench.recipes.finetuning:finetune_cim_vit_small",
    "finetune_cim_vit_base": "cim_bench.recipes.finetuning:finetune_cim_vit_base",
    "finetune_mae_vit_small": "cim_bench.recipes.finetuning:finetune_mae_vit_small",
    "finetune_mae_vit_base": "cim_bench.recipes.finetuning:finetune_mae_vit_base",
    "finetune_simmim_vit_base": "cim_bench.recipes.finetuning:finetune_simmim_vit_base",
    "finetune_beit_vit_base": "cim_bench.recipes.finetuning:finetune_beit_vit_base",
    "finetune_scratch_vit_base": "cim_bench.recipes.finetuning:finetune_scratch_vit_base",
    "finetune_rsb_a3": "cim_bench.recipes.finetuning:finetune_rsb_a3",
    "finetune_rsb_a2": "cim_bench.recipes.finetuning:finetune_rsb_a2",
    "segmentation_beit": "cim_bench.recipes.segmentation:segmentation_beit",
    "segmentation_mae": "cim_bench.recipes.segmentation:segmentation_mae",
    "segmentation_mae_mmseg": "cim_bench.recipes.segmentation:segmentation_mae_mmseg",
    "segmentation_cim": "cim_bench.recipes.segmentation:segmentation_cim",
    "facade": "cim_bench.recipes.facade:facade",
    "imagenet_a": "cim_bench.recipes.shifts:imagenet_a",
    "imagenet_r": "cim_bench.recipes.shifts:imagenet_r",
    "imagenet_sketch": "cim_bench.recipes.shifts:imagenet_sketch",
    "imagenet_v2": "cim_bench.recipes.shifts:imagenet_v2",
    "imagenet_real": "cim_bench.recipes.shifts:imagenet_real",
}
FORMATS: Mapping[str, str] = {}  # checkpoint formats of other packages; ours: models/formats/catalogue
TABLES: Mapping[str, str] = {
    "cim_cvpr2023": "cim_bench.reports.papers.cim_cvpr2023.tables:report",
    "matrix": "cim_bench.reports.papers.cim_cvpr2023.matrix:report",
}
GROUPS: Mapping[str, Mapping[str, str]] = {
    "pretexts": PRETEXTS,
    "evaluators": EVALUATORS,
    "executors": EXECUTORS,
    "formats": FORMATS,
    "recipes": RECIPES,
    "tables": TABLES,
}


def choices(group: str) -> dict[str, str]:
    """All names of a group with their targets: our own and those of installed packages.

    Args:
        group: A key of `GROUPS`; other packages register under ``cim_bench.<group>``.

    Raises:
        ValueError: If two packages register one name.
    """
    found = dict(GROUPS[group])
    for point in entry_points(group=f"cim_bench.{group}"):
        if point.name in found:
            raise ValueError(f"{group} name {point.name!r} is registered twice: {found[point.name]} and {point.value}")
        found[point.name] = point.value
    return dict(sorted(found.items()))


def target(group: str, name: str) -> str:
    """The ``"module:attribute"`` string of a name.

    Raises:
        ValueError: Listing the choices, if the name is unknown.
    """
    known = choices(group)
    if name not in known:
        raise ValueError(f"no {group.removesuffix('s')} is called {name!r}; choose one of {', '.join(known)}")
    return known[name]


def load(path: str) -> Any:
    """Import what a ``"module:attribute"`` string names.

    Raises:
        ValueError: If it cannot be imported: a package that another one needs is missing, say.
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # other people's code, at import
        raise ValueError(f"{path} cannot be imported: {_named(error)}") from error


def make(group: str, name: str) -> Any:
    """What a name stands for, called without arguments: an evaluator, an executor, a recipe.

    Raises:
        ValueError: If the name is unknown, or cannot be imported or made.
    """
    path = target(group, name)
    kind = load(path)
    try:
        return kind()
    except Exception as error:
        raise ValueError(f"{group.removesuffix('s')} {name!r} ({path}) cannot be made: {_named(error)}") from error


def broken(group: str, name: str) -> str:
    """Why the plug-in of another package cannot be imported; empty for our own, which are not tried."""
    if name in GROUPS[group]:
        return ""
    try:
        load(target(group, name))
    except ValueError as error:
        return str(error).partition(" ")[2]  # it begins with the target
    return ""


def name_of(group: str, kind: type) -> str:
    """The registered name of a class; its own name in lower case if it is not registered."""
    path = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, value in choices(group).items() if value == path), kind.__name__.lower())


def summary(path: str) -> str:
    """First docstring line of a target, read from its source without importing it."""
    module, _, attribute = path.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of a package that another one names and that is not installed
        return ""
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    for node in ast.parse(Path(spec.origin).read_bytes()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


_RECIPE_FILE = "cim_bench_recipe_"  # begins the module names of recipe files


def is_recipe_file(module: ModuleType) -> bool:
    """True for what `load_module` made of a file."""
    return module.__name__.startswith(_RECIPE_FILE)


def load_module(name: str) -> ModuleType:
    """Import a module by its name, or execute a recipe's .py file.

    Raises:
        ValueError: If there is no such file or module; or naming file and line, if it raises an error.
    """
    path = Path(name)
    if path.suffix != ".py":
        try:
            return importlib.import_module(name)
        except Exception as error:
            raise ValueError(f"module {name} cannot be imported: {_named(error)}") from error
    if not path.is_file():
        raise ValueError(
            f"no recipe file at {path}; give a registered recipe ({', '.join(choices('recipes'))}) or a .py file"
        )
    spec = importlib.util.spec_from_file_location(f"{_RECIPE_FILE}{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses, tyro and pickle look a class's module up
    with _lines_of(path):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _lines_of(path: Path) -> Iterator[None]:
    """An error of a user's file names its line there."""
    try:
        yield
    except Exception as error:
        places = (str(path), str(path.absolute()))
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in places]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
        raise ValueError(f"{path}{f', line {line}' if line else ''}: {_named(error)}") from error


def _named(error: BaseException) -> str:
    """An error with its kind, on one line."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}"


def load_recipe(name: str) -> Any:
    """The object of a registered recipe, or of a user's file (its function of the file's name, or ``recipe``).

    Raises:
        ValueError: For an unknown name, a file without such a function, or naming file and line of an error there.
    """
    if not name.endswith(".py"):
        return make("recipes", name)
    path = Path(name)
    module = load_module(name)
    function = getattr(module, path.stem, None) or getattr(module, "recipe", None)
    if function is None:
        raise ValueError(
            f"{path} defines neither {path.stem}() nor recipe(); name the function that returns the recipe so"
        )
    with _lines_of(path):
        return function()
