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
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        # variables are lower case, constants and type variables upper case
        yield from (name for name in names if name[0].isupper() and not name.isupper())


def test_what_counts_as_a_type() -> None:
    lines = [
        "class KNN: ...",
        "class _Own: ...",
        "Labels: TypeAlias = int",
        "Kind = str",
        "K = TypeVar('K')",
        "SIZE = 3",
    ]
    assert list(types_of("\n".join(lines))) == ["KNN", "Labels", "Kind"]


def test_no_two_types_share_a_name() -> None:
    files = source_files()
    assert len(files) > 100
    places = defaultdict(list)
    for file in sorted(files):
        for name in types_of(file.read_text()):
            places[name].append(f"{file.parent.name}/{file.name}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
