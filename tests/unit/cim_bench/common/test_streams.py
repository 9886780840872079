"""Terminals and pipes as they are: none of them fails what is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cim_bench.cli.main import NARROWEST, main
from cim_bench.records.store import write_records
from tests.docs.rooms import ROOT

COMMAND = f"{sys.executable} -m cim_bench.cli"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        env={**os.environ, **environment},
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def test_a_reader_that_has_gone_is_no_error() -> None:
    done = shell(f"{COMMAND} list | head -1; exit ${{PIPESTATUS[0]}}")
    assert done.stdout == "pretexts\n"
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0 if all was written before the reader went


def test_closed_streams_are_no_error() -> None:
    done = shell(f"{COMMAND} list 2>&- <&- && {COMMAND} report nowhere >&- 2>&-")
    assert "pretexts\n" in done.stdout
    assert done.returncode == 1  # of the report, which there is none of
    assert "cim-bench" not in done.stderr


@pytest.mark.usefixtures("records")
def test_an_ascii_terminal_gets_its_list_and_its_tables_with_plain_marks(tmp_path: Path) -> None:
    done = shell(f"{COMMAND} report {tmp_path}", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    header = next(line for line in lines if line.startswith("| Method"))
    assert "| k-NN top-1 (%) ^" in header
    assert {len(line) for line in lines if line.startswith("|")} == {len(header)}
    assert "↑" in (tmp_path / "vit.md").read_text(encoding="utf-8")
    assert "evaluators" in shell(f"{COMMAND} list", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii").stdout


@pytest.fixture
def records(tmp_path: Path) -> None:
    from cim_bench.records.measurement import Measurement
    from cim_bench.records.record import ProtocolInfo, Provenance, Record, SubjectInfo

    number = Measurement(benchmark="photos", split="val", metric="top1", value=0.5, n=100, facets={"k": 20})
    subject = SubjectInfo(name="cim", method="cim", arch="vit_tiny", epochs=20.0)
    protocol, provenance = ProtocolInfo(evaluator="knn", version=1), Provenance(source="measured")
    write_records(
        tmp_path, [Record(key="k", subject=subject, protocol=protocol, provenance=provenance, measurement=number)]
    )


def test_help_in_a_column_of_one_letter_comes_to_an_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    with pytest.raises(SystemExit):
        main(["run", "demo", "--help"])
    assert "--evaluators.knn.temperature" in capsys.readouterr().out.replace("\n", "")
    assert os.environ["COLUMNS"] == str(NARROWEST)


@pytest.mark.skipif(not (ROOT / "evals").is_dir(), reason="no checkout")
def test_the_command_works_in_the_checkout_itself() -> None:
    """There, ``-m`` finds the folder cim_bench before the installed package."""
    code = "import cim_bench.evals.metrics, cim_bench.reports.compare, cim_bench.cli.main as m; print(m.__file__)"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "cim_bench" / "cli" / "main.py"
