"""The resolved benchmark on disk: what the processes of its jobs read, whoever starts them.

It is JSON in ``OUTPUT/benchmarks/HASH.json``, named by its content: runs with other options beside each other have
files of their own. A class is named by its module; only those of this package, those that are registered, and those of
modules that were loaded by name before are ever made from a file.
"""

from __future__ import annotations

import dataclasses
import importlib.machinery
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cim_bench import registry
from cim_bench.benchmark import Benchmark, Pretraining, RandomInit
from cim_bench.common.files import safe_name, write_atomic
from cim_bench.common.hashing import stable_hash
from cim_bench.spec import Arch, Data, FromCheckpoint, IterationTraining, Machine, PlugIn, SlidingTest, Training

FOLDER = "benchmarks"
OWN = {
    kind.__name__: kind
    for kind in (
        *(Arch, Benchmark, Data, FromCheckpoint, Machine, Pretraining, RandomInit),
        *(IterationTraining, SlidingTest, Training),
    )
}
GROUPS = ("pretexts", "evaluators", "executors")


def write_benchmark(benchmark: Benchmark, output: Path) -> Path:
    """Write a benchmark into its output folder.

    Returns:
        The file.

    Raises:
        OSError: Naming the file, if it cannot be written.
        ValueError: If a subject's folder would be that of the file.
    """
    if taken := [name for name in benchmark.subjects if safe_name(name) == FOLDER]:
        raise ValueError(f"subject {taken[0]!r} would have the folder of the written benchmarks; give it another name")
    encoded = _encode(benchmark)
    file = output / FOLDER / f"{stable_hash(encoded)[:12]}.json"
    write_atomic(file, json.dumps(encoded, indent=1) + "\n")
    return file


def read_benchmark(file: Path) -> Benchmark:
    """Inverse of `write_benchmark`.

    Raises:
        ValueError: Naming the file, if it is not a benchmark, or a class that is not known here.
    """
    try:
        found = _decode(json.loads(file.read_text()))
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is not a benchmark that this version wrote: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not isinstance(found, Benchmark):
        raise ValueError(f"{file} holds a {type(found).__name__}, not a benchmark")
    return found


def loads(benchmark: Benchmark) -> list[str]:
    """Files and modules that another process must load before it can read a benchmark: those of unregistered classes.

    Raises:
        ValueError: Naming a class that no other process can import.
    """
    needed: dict[str, None] = {}
    for kind in _kinds(benchmark):
        if kind in OWN.values() or _target(kind) in _registered():
            continue
        module = sys.modules[kind.__module__]
        if registry.is_recipe_file(module):
            needed[str(Path(str(module.__file__)).resolve())] = None
        elif _is_importable(kind.__module__):
            needed[kind.__module__] = None
        else:
            raise ValueError(
                f"{kind.__qualname__} is defined in {kind.__module__}, which other processes cannot import"
            )
    return list(needed)


def _encode(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": _name(type(value)), "fields": fields}
    if isinstance(value, Mapping):
        return {"map": {str(key): _encode(item) for key, item in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a benchmark cannot hold {value!r}: give numbers, text, tuples, mappings or dataclasses")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_decode(item) for item in value["tuple"])
    if "map" in value:
        return {key: _decode(item) for key, item in value["map"].items()}
    return _class(value["class"])(**{key: _decode(item) for key, item in value["fields"].items()})


def _name(kind: type) -> str:
    return kind.__name__ if kind in OWN.values() else _target(kind)


def _target(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _class(name: str) -> type:
    if name in OWN:
        return OWN[name]
    if name in _registered():
        found = registry.load(name)
    else:
        module, _, attribute = name.partition(":")
        if module not in sys.modules:
            raise ValueError(f"it uses {name}, which is not registered; give --load with its module or recipe file")
        found = getattr(sys.modules[module], attribute, None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and issubclass(found, PlugIn)):
        raise ValueError(f"{name} is not a pretext, evaluator or executor")
    return found


def _registered() -> set[str]:
    return {target for group in GROUPS for target in registry.choices(group).values()}


def _kinds(value: object) -> Iterator[type]:
    """The dataclasses of a value and of all that it holds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for item in dataclasses.fields(value):
            yield from _kinds(getattr(value, item.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _kinds(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _kinds(item)


def _is_importable(module: str) -> bool:
    """Whether another process finds a module: `__main__`, a notebook's or a test's are in this process alone."""
    top = module.partition(".")[0]
    spec = importlib.machinery.PathFinder.find_spec(top)
    return spec is not None and spec.origin is not None
