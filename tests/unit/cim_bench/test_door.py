"""The one door: every name is there, none is that of a sub-package, nothing heavy comes before it is used."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import cim_bench


def names_for_type_checkers() -> dict[str, str]:
    tree = ast.parse(Path(str(cim_bench.__file__)).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_the_two_lists_agree_and_every_name_is_where_they_say() -> None:
    assert names_for_type_checkers() == cim_bench._HOME_OF
    for name, module in cim_bench._HOME_OF.items():
        assert getattr(cim_bench, name) is getattr(importlib.import_module(module), name)
        assert name in dir(cim_bench)


def test_no_name_is_that_of_a_sub_package() -> None:
    rooms = {module.name for module in pkgutil.iter_modules(cim_bench.__path__)}
    assert not rooms & cim_bench._HOME_OF.keys()


def test_an_unknown_name_is_refused() -> None:
    assert not hasattr(cim_bench, "nosuch")


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import sys, json, cim_bench; cim_bench.Data; dir(cim_bench); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "timm", "pandas", "numpy", "matplotlib"} & set(json.loads(done.stdout))
