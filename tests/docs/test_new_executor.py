"""The example of `docs/new_executor.md`, in a package of its own: the numbers of the local executor; bad plug-ins."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cim_bench.cli.main import main
from cim_bench.records.store import read_records
from tests.docs.conftest import blocks

PAGE = "new_executor.md"
# Two jobs that can run at once, after one that both need; the others of the recipe would only take time.
JOBS = ["--jobs", "CIM/knn", "CIM/finetune"]


def add_broken(site: Path) -> None:
    """A package whose evaluator does not import, as pip leaves it."""
    info = site / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cim_bench.evaluators]\nbroken = broken_package:Broken\n")
    (site / "broken_package.py").write_text("import no_such_package_at_all\n")


def numbers(output: Path) -> dict[str, tuple[str, object]]:
    """Key, measurement and device of each record, by its job."""
    return {
        f"{record.subject.name}/{record.protocol.evaluator}": (record.key, record.measurement, record.provenance.device)
        for record in read_records(output)
    }


def test_it_imports_from_the_door_alone() -> None:
    (module,) = blocks(PAGE, "python")
    assert re.findall(r"(?:from|import) (cim_bench[\w.]*)", module) == ["cim_bench"]
    assert len(module.splitlines()) < 50


def test_installed_it_gives_the_numbers_of_the_local_executor(
    installed: Callable[[str], Path],
    shell: Callable[..., subprocess.CompletedProcess[str]],
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A package that does not import is named by `list`, and stops neither this run nor its jobs."""
    site = installed(PAGE)
    add_broken(site)
    listed = shell(site, "list").stdout
    assert re.search(r"^  commands +Each batch of jobs as a command of its own\.$", listed, flags=re.MULTILINE)
    assert re.search(r"^  broken +cannot be imported: .*no_such_package_at_all", listed, flags=re.MULTILINE)
    options = ["--executor", "commands", "--executor.at-once", "2"]
    made = shell(site, "run", recipe_file, *options, "--output", "theirs", *JOBS)
    ended = dict(reversed(line.split()) for line in made.stderr.splitlines() if line.startswith("done"))
    assert ended.keys() == {"CIM/pretrain", "CIM/knn", "CIM/finetune"}
    assert main(["run", str(recipe_file), "--executor.slots", "1", "--output", str(tmp_path / "ours"), *JOBS]) == 0
    assert numbers(tmp_path / "theirs") == numbers(tmp_path / "ours")
    assert numbers(tmp_path / "ours").keys() == {"CIM/knn", "CIM/finetune"}
    assert (tmp_path / "theirs" / "vit.md").read_text() == (tmp_path / "ours" / "vit.md").read_text()
    # what one executor has finished, another skips
    capsys.readouterr()
    assert main(["run", str(recipe_file), "--output", str(tmp_path / "theirs"), *JOBS]) == 0
    assert capsys.readouterr().err.count("skipped") == 3
    written = [json.loads(file.read_text()) for file in (tmp_path / "theirs" / "benchmarks").iterdir()]
    executors = {benchmark["fields"]["executor"]["class"] for benchmark in written}
    assert executors == {"my_executors.commands:Commands", "cim_bench.executors.local:LocalExecutor"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["run", "RECIPE", "--executor", "nosuch"], ("no executor is called 'nosuch'", "local")),
        (["run", "RECIPE", "--report", "nosuch"], ("no table is called 'nosuch'", "cim_cvpr2023, matrix")),
        (["report", "FOLDER", "--tables", "nosuch"], ("no table is called 'nosuch'", "cim_cvpr2023, matrix")),
    ],
)
def test_an_unknown_executor_or_table_is_one_sentence(
    options: list[str], words: tuple[str, str], recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"RECIPE": str(recipe_file), "FOLDER": str(recipe_file.parent)}
    assert main([given.get(option, option) for option in options]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words)
    assert not (recipe_file.parent / "runs").exists()
