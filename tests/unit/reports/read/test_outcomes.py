"""Outcomes on disk: chunks, joined columns, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cim_bench.records.facets import Facets
from cim_bench.records.record import ProtocolInfo
from cim_bench.reports.read.outcomes import Outcomes, read_outcomes

ATTACKS = ProtocolInfo(evaluator="adversarial", version=1, settings={"eps": [0.1, 8 / 255]})
FGSM: Facets = {"attack": "fgsm", "eps": 0.1}


def part(folder: Path, name: str, **columns: list[object]) -> Path:
    """As version 0.1.0 wrote it: columns are told by their names alone."""
    file = folder / "outcomes" / f"{name}.parquet"
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return file


def read(folder: Path, evaluator: str = "adversarial", *, partial: bool = False) -> Outcomes:
    return read_outcomes(
        folder, ProtocolInfo(evaluator=evaluator, version=1, settings=ATTACKS.settings, partial=partial)
    )


def test_chunks_are_stacked(tmp_path: Path) -> None:
    part(tmp_path, "images-000", id=["a", "b"], label=[0, 1], fgsm=[0, 0])
    part(tmp_path, "images-001", id=["c"], label=[2], fgsm=[2])
    part(tmp_path, ".images-002.parquet.tmp", id=["d"], label=[2], fgsm=[2])  # being written
    outcomes = read(tmp_path)
    assert list(outcomes.frame["id"]) == ["a", "b", "c"]
    assert [list(found) for found in outcomes.hits(FGSM)] == [[True, True, True], [True, False, True]]


def test_columns_are_joined_by_id(tmp_path: Path) -> None:
    part(tmp_path, "fog", id=["a", "b"], label=[0, 1], **{"fog-1": [0, 1], "fog-2": [0, 0]})
    part(tmp_path, "snow", id=["b", "a"], label=[1, 0], **{"snow-1": [1, 2]})
    frame = read(tmp_path, "corruptions").frame.set_index("id")
    assert frame.loc["a"].to_dict() == {"label": 0, "fog-1": 0, "fog-2": 0, "snow-1": 2}
    assert frame.loc["b"].to_dict() == {"label": 1, "fog-1": 1, "fog-2": 0, "snow-1": 1}


def test_images_that_lack_a_prediction(tmp_path: Path) -> None:
    part(tmp_path, "a", id=["x", "y"], label=[0, 1], prediction=[0, 0])
    part(tmp_path, "clean", id=["y", "z"], label=[1, 2], **{"clean-200": [1, 2]})
    outcomes, clean = read(tmp_path, "shifts"), {"images": "clean", "classes": 200}
    assert list(outcomes.frame["id"]) == ["x", "y", "z"]
    assert [list(found) for found in outcomes.hits({})] == [[True, True, False], [True, False]]
    assert [list(found) for found in outcomes.hits(clean)] == [[False, True, True], [True, True]]
    rows, flags = outcomes.wrong([{}, clean])
    assert list(rows["id"]) == ["y"]
    assert [list(found) for found in flags] == [[True], [False]]


def test_partial_records_rest_on_the_subset(tmp_path: Path) -> None:
    part(tmp_path, "images-subset", id=["a"], label=[0], prediction=[0])
    part(tmp_path, "images-000", id=["b"], label=[1], prediction=[1])
    assert list(read(tmp_path, partial=True).frame["id"]) == ["a"]
    assert len(read(tmp_path).frame) == 2


def test_older_runs_keep_one_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "label": [1], "k=20": [1]}), tmp_path / "outcomes.parquet")
    assert [list(found) for found in read(tmp_path, "knn").hits({"k": 20})] == [[True], [True]]


def test_columns_are_found_by_their_facets(tmp_path: Path) -> None:
    part(tmp_path, "all", id=["a"], label=[0], prediction=[0], **{"fgsm": [1], "fgsm eps=8/255": [0]})
    outcomes = read(tmp_path)
    wanted: list[Facets] = [{}, FGSM, {"eps": 8 / 255, "attack": "fgsm"}, {"attack": "fgsm"}, {"attack": "clean"}]
    assert [outcomes.has(facets) for facets in wanted] == [True, True, True, False, False]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = part(tmp_path, "images-000", id=["a"], label=[0], prediction=[0])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"images-000\.parquet is damaged .*; delete it") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged"):
        read(tmp_path)


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keeps no outcomes"):
        read(tmp_path)
    part(tmp_path, "1", id=["a"], label=[0], fgsm=[0])
    part(tmp_path, "2", id=["a"], label=[0], fgsm=[0])
    with pytest.raises(ValueError, match="hold image 'a' twice"):
        read(tmp_path)
    part(tmp_path, "2", id=["b", "a"], label=[1, 1], pgd=[0, 0])
    with pytest.raises(ValueError, match="image 'a' two labels"):
        read(tmp_path)
    part(tmp_path, "2", id=["a"], label=[0], fgsm=[0], pgd=[0])
    with pytest.raises(ValueError, match="both hold predictions 'fgsm'"):
        read(tmp_path)


def test_other_tables_are_refused(tmp_path: Path) -> None:
    part(tmp_path, "1", id=["a"], value=[0])
    with pytest.raises(ValueError, match=r"1\.parquet has no column label"):
        read(tmp_path)
    part(tmp_path, "1", id=["a"], label=[0], fgsm=[0.5])
    with pytest.raises(ValueError, match="column 'fgsm' does not hold whole numbers"):
        read(tmp_path)
