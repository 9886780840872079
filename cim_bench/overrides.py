"""Recipes by name or from a user's file, and their fields overridden from the command line."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from cim_bench import registry

T = TypeVar("T")


def load_recipe(name: str) -> Any:
    """The object of a registered recipe, or of a user's file (its function of the file's name, or ``recipe``).

    Raises:
        ValueError: For an unknown name, or a file without such a function.
    """
    if not name.endswith(".py"):
        return registry.load(registry.target("recipes", name))()
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"no recipe file at {path}; "
            f"give a registered recipe ({', '.join(registry.choices('recipes'))}) or a .py file"
        )
    spec = importlib.util.spec_from_file_location(f"cim_bench_recipe_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses, tyro and pickle look a class's module up
    spec.loader.exec_module(module)
    function = getattr(module, path.stem, None) or getattr(module, "recipe", None)
    if function is None:
        raise ValueError(
            f"{path} defines neither {path.stem}() nor recipe(); name the function that returns the recipe so"
        )
    return function()


def override(recipe: T, arguments: Sequence[str], prog: str) -> T:
    """Change fields of a recipe by their dotted names, e.g. ``--training.epochs 5``.

    Raises:
        ValueError: One sentence, for an unknown name or a value of the wrong type.
    """
    import tyro

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                type(recipe), default=recipe, args=list(arguments), prog=prog, config=(tyro.conf.AvoidSubcommands,)
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_sentence(errors.getvalue(), prog)) from None


def _one_sentence(panel: str, prog: str) -> str:
    """tyro's error panel without its title, frame and hints."""
    lines = [re.sub(r"[│╭╮╰╯─]+", " ", line).strip() for line in panel.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    text = re.split(r"Argument helptext|For full helptext", text)[0]
    return f"{re.sub(r'  +', ' ', text).strip(' .')} (`{prog} --help` lists every field)"
