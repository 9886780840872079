"""What version 0.1.0 printed of its own records comes out again, byte for byte."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from cim_bench.records.store import read_runs
from cim_bench.reports.compare import compare
from cim_bench.reports.papers.cim_cvpr2023.matrix import report

KEPT = Path(__file__).parents[2] / "fixtures" / "schema1" / "runs.tar.xz"
PAIRS = {"tiny": ("Random-1", "Random-2"), "imagenet": ("CIM-ViT-B", "CIM-R50")}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schema1")
    with tarfile.open(KEPT) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("name", ["tiny", "subset", "imagenet"])
def test_tables(name: str, kept: Path, tmp_path: Path) -> None:
    report(kept / "runs" / name, tmp_path)
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    expected = {f.name: f.read_bytes() for f in (kept / "tables" / name).iterdir() if f.name != "compare.md"}
    assert written.keys() == expected.keys()
    for file, content in expected.items():
        # the matrix has a table of segmentation since, below the others
        same = written[file][: len(content)] if file.startswith("matrix") else written[file]
        assert same.decode() == content.decode(), file


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_comparisons(name: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kept)
    one, two = (Path("runs", name, subject) for subject in PAIRS[name])
    assert compare(one, two).markdown() + "\n" == (kept / "tables" / name / "compare.md").read_text()


def test_the_records_are_of_many_kinds(kept: Path) -> None:
    found = [record for record, _ in read_runs(kept / "runs")]
    facets = {name for record in found if record.measurement for name in record.measurement.facets}
    assert {"k", "attack", "eps", "corruption", "severity", "images", "classes", "mean"} < facets
    assert {"brightest.variant", "nearest_mean.variant"} < facets
    assert {record.provenance.status for record in found} == {"ok", "failed"}
    assert {record.protocol.partial for record in found} == {True, False}
