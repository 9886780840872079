"""One name for one thing: no two public classes or type aliases of the package share a name."""

from __future__ import annotations

import ast
import importlib.util
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("cim_bench", "cim_bench.pretrain", "cim_bench.evals", "cim_bench.reports")


def source_files() -> set[Path]:
    """All modules, found without importing them; each once, though packages lie within each other where installed."""
    found = set()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        for root in spec.submodule_search_locations:
            for folder, _, names in os.walk(root, followlinks=True):
                found.update(Path(folder, name).resolve() for name in names if name.endswith(".py"))
    return found


def types_of(source: str) -> Iterator[str]:
    """Public top-level classes and type aliases: ``class Name``, ``Name: TypeAlias = ...``, ``Name = ...``."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            continue
        # constants are upper case, variables lower case, type variables one letter
        yield from (n for n in names if n[0].isupper() and not n.isupper() and len(n) > 1)


def test_what_counts_as_a_type() -> None:
    source = (
        "class A1: ...\nclass Batch: ...\nLabels: TypeAlias = int\nKind = str\nK = TypeVar('K')\nSIZE = 3\n_Own = int"
    )
    assert list(types_of(source)) == ["Batch", "Labels", "Kind"]


def test_no_two_types_share_a_name() -> None:
    files = source_files()
    assert len(files) > 100
    places = defaultdict(list)
    for file in sorted(files):
        for name in types_of(file.read_text()):
            places[name].append(f"{file.parent.name}/{file.name}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
