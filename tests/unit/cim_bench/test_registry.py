from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cim_bench import registry
from cim_bench.benchmark import Benchmark, Pretraining
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.contracts.pretext import Pretext
from cim_bench.evals.knn import KNN

TARGETS = [(group, name) for group, names in registry.GROUPS.items() for name in names]


def install(folder: Path, package: str, points: str) -> None:
    """A distribution's metadata as pip leaves it."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


@pytest.mark.parametrize("group", registry.GROUPS)
def test_an_unknown_name_lists_the_choices(group: str) -> None:
    with pytest.raises(ValueError, match=r"no .* is called 'nothing'; choose one of") as caught:
        registry.target(group, "nothing")
    assert all(name in str(caught.value) for name in registry.GROUPS[group])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("group", "name"), TARGETS)
def test_every_target_imports_and_is_what_its_group_holds(group: str, name: str) -> None:
    found = registry.load(registry.target(group, name))
    if group == "pretexts":
        assert issubclass(found, Pretext)
        assert isinstance(found.version, int)
        assert found.method
    elif group == "evaluators":
        assert issubclass(found, Evaluator)
        assert isinstance(found.version, int)
        assert found.needs in ("backbone", "classifier")
        assert registry.name_of(group, found) == name
        assert isinstance(found(), Evaluator)
    elif group == "executors":
        assert callable(found().execute)
    elif group == "tables":
        assert callable(found)
    else:
        assert isinstance(found(), Benchmark | Pretraining | Evaluator)


@pytest.mark.parametrize(("group", "name"), TARGETS)
def test_every_target_has_a_summary_read_from_its_source(group: str, name: str) -> None:
    path = registry.target(group, name)
    summary = registry.summary(path)
    assert len(summary) > 10
    assert registry.load(path).__doc__.splitlines()[0] == summary


def test_a_target_without_source_has_no_summary() -> None:
    assert registry.summary("no_such_module_at_all:Thing") == ""
    assert registry.summary("no_such_package.module:Thing") == ""
    assert registry.summary("cim_bench.records.record:Nothing") == ""
    assert registry.summary("sys:exit") == ""


def test_another_package_adds_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "toy", "[cim_bench.evaluators]\ntoy = toy_evals:Toy\n")
    (tmp_path / "toy_evals.py").write_text('class Toy:\n    """A toy.\n\n    More.\n    """\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.choices("evaluators")["toy"] == "toy_evals:Toy"
    assert list(registry.choices("evaluators")) == sorted(registry.choices("evaluators"))
    assert registry.summary("toy_evals:Toy") == "A toy."
    assert "toy_evals" not in sys.modules
    kind = registry.load(registry.target("evaluators", "toy"))
    assert registry.name_of("evaluators", kind) == "toy"
    assert "toy" not in registry.choices("pretexts")


def test_a_name_of_ours_taken_by_another_package_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "toy", "[cim_bench.evaluators]\nknn = toy_evals:Toy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"evaluators name 'knn' is registered twice: .*knn:KNN and toy_evals:Toy"):
        registry.choices("evaluators")
    registry.choices("pretexts")


def test_a_name_that_two_packages_register_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "one", "one", "[cim_bench.pretexts]\nnew = one:A\n")
    install(tmp_path / "two", "two", "[cim_bench.pretexts]\nnew = two:B\n")
    monkeypatch.syspath_prepend(str(tmp_path / "one"))
    monkeypatch.syspath_prepend(str(tmp_path / "two"))
    with pytest.raises(ValueError, match="'new' is registered twice") as caught:
        registry.target("pretexts", "new")
    assert {"one:A", "two:B"} <= set(str(caught.value).split())


def test_a_class_that_is_not_registered_goes_by_its_own_name() -> None:
    class MyProtocol(KNN):
        pass

    assert registry.name_of("evaluators", MyProtocol) == "myprotocol"


HEAVY = ("torch", "timm", "torchvision", "accelerate")
RUN = """
import contextlib, json, sys
sys.argv = json.loads(sys.argv[1])
with contextlib.redirect_stdout(sys.stderr):
    import cim_bench.cli.main
    try:
        status = cim_bench.cli.main.main() if sys.argv[1:] else 0
    except SystemExit as stop:
        status = stop.code or 0
print(json.dumps([status, [name for name in json.loads(HEAVY) if name in sys.modules]]))
"""


@pytest.mark.parametrize("arguments", [[], ["list"], ["--help"], ["--version"], ["report", "--help"]], ids=str)
def test_the_command_line_does_not_import_torch_for_this(arguments: list[str]) -> None:
    code = f"HEAVY = {json.dumps(json.dumps(HEAVY))}\n{RUN}"
    command = [sys.executable, "-c", code, json.dumps(["cim-bench", *arguments])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, []]
    if arguments == ["list"]:
        assert all(name in done.stderr for names in registry.GROUPS.values() for name in names)


def test_a_package_that_is_broken_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[cim_bench.evaluators]\nbroken = broken_toy:Toy\nleaves = leaving_toy:Toy\nasks = asking_toy:Toy\n"
    install(tmp_path, "toy", points)
    (tmp_path / "broken_toy.py").write_text("import nothing_at_all\n")
    (tmp_path / "leaving_toy.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "asking_toy.py").write_text("class Toy:\n    def __init__(self, knob): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, words in {
        "broken": r"broken_toy:Toy cannot be imported: ModuleNotFoundError: No module named 'nothing_at_all'",
        "leaves": r"leaving_toy:Toy cannot be imported: SystemExit: 3",
        "asks": r"evaluator 'asks' \(asking_toy:Toy\) cannot be made: TypeError: .*'knob'",
    }.items():
        with pytest.raises(ValueError, match=words):
            registry.make("evaluators", name)
    assert registry.broken("evaluators", "leaves") == "cannot be imported: SystemExit: 3"
    assert registry.make("evaluators", "knn") == KNN()
