"""Outcomes on disk: chunks, joined columns, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cim_bench.reports.read.outcomes import column_of, hits, read_outcomes, wrong


def part(folder: Path, name: str, **columns: list[object]) -> Path:
    file = folder / "outcomes" / f"{name}.parquet"
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return file


def test_chunks_are_stacked(tmp_path: Path) -> None:
    part(tmp_path, "images-000", id=["a", "b"], label=[0, 1], fgsm=[0, 0])
    part(tmp_path, "images-001", id=["c"], label=[2], fgsm=[2])
    part(tmp_path, ".images-002.parquet.tmp", id=["d"], label=[2], fgsm=[2])  # being written
    frame = read_outcomes(tmp_path)
    assert list(frame["id"]) == ["a", "b", "c"]
    assert [list(found) for found in hits(frame, "fgsm")] == [[True, True, True], [True, False, True]]


def test_columns_are_joined_by_id(tmp_path: Path) -> None:
    part(tmp_path, "fog", id=["a", "b"], label=[0, 1], **{"fog-1": [0, 1], "fog-2": [0, 0]})
    part(tmp_path, "snow", id=["b", "a"], label=[1, 0], **{"snow-1": [1, 2]})
    frame = read_outcomes(tmp_path).set_index("id")
    assert frame.loc["a"].to_dict() == {"label": 0, "fog-1": 0, "fog-2": 0, "snow-1": 2}
    assert frame.loc["b"].to_dict() == {"label": 1, "fog-1": 1, "fog-2": 0, "snow-1": 1}


def test_images_that_lack_a_prediction(tmp_path: Path) -> None:
    part(tmp_path, "a", id=["x", "y"], label=[0, 1], prediction=[0, 0])
    part(tmp_path, "clean", id=["y", "z"], label=[1, 2], **{"clean-200": [1, 2]})
    frame = read_outcomes(tmp_path)
    assert list(frame["id"]) == ["x", "y", "z"]
    assert [list(found) for found in hits(frame, "prediction")] == [[True, True, False], [True, False]]
    assert [list(found) for found in hits(frame, "clean-200")] == [[False, True, True], [True, True]]
    rows, flags = wrong(frame, ["prediction", "clean-200"])
    assert list(rows["id"]) == ["y"]
    assert {name: list(found) for name, found in flags.items()} == {"prediction": [True], "clean-200": [False]}


def test_partial_records_rest_on_the_subset(tmp_path: Path) -> None:
    part(tmp_path, "images-subset", id=["a"], label=[0], prediction=[0])
    part(tmp_path, "images-000", id=["b"], label=[1], prediction=[1])
    assert list(read_outcomes(tmp_path, partial=True)["id"]) == ["a"]
    assert len(read_outcomes(tmp_path)) == 2


def test_older_runs_keep_one_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "label": [1], "k=20": [1]}), tmp_path / "outcomes.parquet")
    assert list(read_outcomes(tmp_path)["k=20"]) == [1]


def test_a_variants_column(tmp_path: Path) -> None:
    part(tmp_path, "all", id=["a"], label=[0], prediction=[0], pgd=[1])
    frame = read_outcomes(tmp_path)
    assert [column_of(frame, variant) for variant in ("", "pgd", "fgsm", "label")] == ["prediction", "pgd", None, None]


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    file = part(tmp_path, "images-000", id=["a"], label=[0], prediction=[0])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"images-000\.parquet is not a readable Parquet file .*; delete it") as caught:
        read_outcomes(tmp_path)
    assert "\n" not in str(caught.value)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        read_outcomes(tmp_path)


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keeps no outcomes"):
        read_outcomes(tmp_path)
    part(tmp_path, "1", id=["a"], label=[0], fgsm=[0])
    part(tmp_path, "2", id=["a"], label=[0], fgsm=[0])
    with pytest.raises(ValueError, match="hold image 'a' twice"):
        read_outcomes(tmp_path)
    part(tmp_path, "2", id=["b", "a"], label=[1, 1], pgd=[0, 0])
    with pytest.raises(ValueError, match="image 'a' two labels"):
        read_outcomes(tmp_path)
    part(tmp_path, "2", id=["a"], label=[0], fgsm=[0], pgd=[0])
    with pytest.raises(ValueError, match="both hold predictions 'fgsm'"):
        read_outcomes(tmp_path)


def test_other_tables_are_refused(tmp_path: Path) -> None:
    part(tmp_path, "1", id=["a"], value=[0])
    with pytest.raises(ValueError, match=r"1\.parquet has no column label"):
        read_outcomes(tmp_path)
    part(tmp_path, "1", id=["a"], label=[0], fgsm=[0.5])
    with pytest.raises(ValueError, match="column 'fgsm' does not hold whole numbers"):
        read_outcomes(tmp_path)
