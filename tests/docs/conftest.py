"""Packages as the pages tell their readers to write them, installed and used as a user does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.rooms import ROOT
from tests.end_to_end.conftest import RECIPE
from tests.processes import HANG_GUARD_S


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL)


@pytest.fixture
def recipe_file(tmp_path: Path, small_root: Path) -> Path:
    """A user's benchmark recipe, the small one of the end-to-end tests."""
    file = tmp_path / "my_recipe.py"
    file.write_text(RECIPE.format(root=str(small_root)))
    return file


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[str], Path]:
    """``installed(page)`` makes a package of the page's two blocks, installs it, and returns where."""

    def install(page: str) -> Path:
        (module,), (pyproject,) = blocks(page, "python"), blocks(page, "toml")
        (target,) = re.findall(r'^\w+ = "([\w.]+):\w+"$', pyproject, flags=re.MULTILINE)
        package, name = target.split(".")
        source, site = tmp_path / "source", tmp_path / "site"
        (source / package).mkdir(parents=True)
        (source / "pyproject.toml").write_text(pyproject)
        (source / package / "__init__.py").touch()
        (source / package / f"{name}.py").write_text(module)
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
        pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(source)]
        done = subprocess.run(pip, capture_output=True, text=True, timeout=HANG_GUARD_S, check=False)
        assert done.returncode == 0, done.stderr
        return site

    return install


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``shell(site, *arguments)`` runs the command as a process that finds what is installed in `site`."""

    def run(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cim_bench.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            timeout=HANG_GUARD_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return run
