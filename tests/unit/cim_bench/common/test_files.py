"""Names of any length, and what writes that were cut off leave."""

from __future__ import annotations

from pathlib import Path

from cim_bench.common.files import LONGEST, remove, safe_name, unfinished_writes, write_atomic


def test_long_names_stay_apart_and_fit_into_a_file_system(tmp_path: Path) -> None:
    names = [safe_name("x" * 300 + end) for end in ("a", "b")]
    assert names[0] != names[1]
    assert [len(name) for name in names] == [LONGEST, LONGEST]
    assert safe_name(names[0]) == names[0]
    assert safe_name("y" * LONGEST) == "y" * LONGEST
    write_atomic(tmp_path / names[0] / f"{names[1]}.md", "fits")


def test_hidden_leftovers_are_found_and_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.abc").mkdir()
    (tmp_path / ".checkpoint.abc" / ".inner").touch()
    (tmp_path / "outcomes").mkdir()
    (tmp_path / "outcomes" / ".all.parquet.x1").touch()
    (tmp_path / "records.jsonl").touch()
    found = unfinished_writes(tmp_path)
    assert found == [tmp_path / ".checkpoint.abc", tmp_path / "outcomes" / ".all.parquet.x1"]
    for path in [*found, tmp_path / "gone"]:
        remove(path)
    assert unfinished_writes(tmp_path) == []
    assert (tmp_path / "records.jsonl").exists()
