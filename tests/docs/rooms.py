"""The rooms of the package, as they lie in the checkout, and what each imports."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOOR = "__init__"  # cim_bench/__init__.py
EVERYWHERE = ("common", "registry", "spec")  # imported by nearly all: no arrows


def rooms() -> dict[str, list[Path]]:
    """Every folder and top-level file of the package with its source files."""
    found = {name: sorted((ROOT / name).rglob("*.py")) for name in ("pretrain", "evals", "reports")}
    for path in sorted((ROOT / "cim_bench").iterdir()):
        if path.suffix == ".py":
            found[path.stem] = [path]
        elif (path / "__init__.py").exists():
            found[path.name] = sorted(path.rglob("*.py"))
    return found


def layers() -> list[list[str]]:
    """The rooms of import-linter's contract, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (found,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [[name.strip() for name in layer.split("|")] for layer in found]


def direct_imports() -> dict[str, set[str]]:
    """The rooms that each room imports, those of functions and of type checkers included."""
    found = rooms()
    return {
        room: {used for file in files for used in _imported(ast.parse(file.read_text()), set(found))} - {room}
        for room, files in found.items()
    }


def arrows() -> set[tuple[str, str]]:
    """What the picture shows: imports for which there is no longer way through other rooms of the picture."""
    used = direct_imports()
    shown = {room: found - {*EVERYWHERE} for room, found in used.items() if room not in EVERYWHERE}
    below = {room: _reachable(shown, room) for room in shown}
    return {(room, other) for room in shown for other in shown[room] if not any(other in below[b] for b in shown[room])}


def _imported(tree: ast.Module, known: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cim_bench":
            names = node.module.split(".")[1:] if node.module else []
            yield from names[:1] or (alias.name if alias.name in known else DOOR for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top, _, rest = alias.name.partition(".")
                if top == "cim_bench":
                    yield rest.partition(".")[0] or DOOR


def _reachable(graph: dict[str, set[str]], room: str) -> set[str]:
    """Rooms below a room; the graph has no circles."""
    return graph[room] | {below for other in graph[room] for below in _reachable(graph, other)}
