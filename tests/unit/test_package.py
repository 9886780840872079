"""What is installed is what lies in the four folders: no room, file of data or marker is left out of the wheel."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import cim_bench

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_packages_are_the_folders_that_have_an_init(pyproject: dict[str, Any]) -> None:
    setuptools = pyproject["tool"]["setuptools"]
    found = [
        ".".join([name, *init.parent.relative_to(ROOT / folder).parts])
        for name, folder in setuptools["package-dir"].items()
        for init in (ROOT / folder).rglob("__init__.py")
    ]
    assert sorted(setuptools["packages"]) == sorted(found)
    assert len(set(found)) == len(found)


def test_every_python_file_is_in_a_package(pyproject: dict[str, Any]) -> None:
    for folder in pyproject["tool"]["setuptools"]["package-dir"].values():
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file.relative_to(ROOT)


def test_data_files_are_installed(pyproject: dict[str, Any]) -> None:
    listed = pyproject["tool"]["setuptools"]["package-data"]
    directories = pyproject["tool"]["setuptools"]["package-dir"]
    for package, names in listed.items():
        top = max((name for name in directories if f"{package}.".startswith(f"{name}.")), key=len)
        folder = ROOT / directories[top] / Path(*package.removeprefix(top).strip(".").split("."))
        for name in names:
            assert files(package).joinpath(name).read_bytes() == (folder / name).read_bytes()
    assert "py.typed" in listed["cim_bench"]
    kept = {".py", ".pyc", ".typed", ".csv"}
    for folder in directories.values():
        others = [f for f in (ROOT / folder).rglob("*") if f.is_file() and f.suffix not in kept]
        assert not others, f"files of kinds that package-data does not name: {others}"


def test_the_version_is_written_once(pyproject: dict[str, Any]) -> None:
    assert cim_bench.__version__ == version("cim-bench") == pyproject["project"]["version"]
    assert "version" not in [line.partition(":")[0] for line in (ROOT / "CITATION.cff").read_text().splitlines()]


def test_floors_are_what_the_dependencies_promise(pyproject: dict[str, Any]) -> None:
    """`tox run -e floors` installs exactly the lower bound of each dependency of what it tests."""
    lines = (ROOT / "constraints-floors.txt").read_text().splitlines()
    pins = {pin.name: pin.specifier for pin in map(Requirement, (line for line in lines if not line.startswith("#")))}
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    words = [*project["dependencies"], *extras["photos"], *extras["attacks"], *extras["dev"]]
    promised = {wanted.name: wanted.specifier for wanted in map(Requirement, words)}
    assert pins.keys() >= {Requirement(word).name for word in words if word not in extras["dev"]}
    for name, pin in ((name, pin) for name, pin in pins.items() if name in promised):
        versions = [Version(next(iter(found)).version) for found in (pin, promised[name])]
        assert versions[0] == versions[1], f"{name}: {pin} is not the floor of {promised[name]}"
