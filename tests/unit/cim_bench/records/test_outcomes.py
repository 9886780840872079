"""Outcomes of samples: what is written comes back, counts are exact, damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cim_bench.records.outcomes import outcomes_file, read_outcomes, tally, write_outcomes


def test_written_and_read(tmp_path: Path) -> None:
    write_outcomes(tmp_path, "a", ["x", "y"], np.array([3, 1]), {"": np.array([3, 0]), "k=5": np.array([-1, 1])})
    table = read_outcomes(outcomes_file(tmp_path, "a"))
    assert table.to_pydict() == {"id": ["x", "y"], "label": [3, 1], "prediction": [3, 0], "k=5": [-1, 1]}


@given(st.lists(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 2)), max_size=8), max_size=4))
def test_tally_counts_over_parts(tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[int, int]]]) -> None:
    folder = tmp_path_factory.mktemp("tally")
    for number, rows in enumerate(parts):
        guesses, labels = (np.array([row[k] for row in rows], dtype=np.int64) for k in (0, 1))
        write_outcomes(folder, str(number), [str(i) for i in range(len(rows))], labels, {"v": guesses})
    found = tally(outcomes_file(folder, str(number)) for number in range(len(parts)))
    flat = [row for rows in parts for row in rows]
    assert found == ({"v": (sum(a == b for a, b in flat), len(flat))} if parts else {})


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", b"\0" * 100])
def test_damage_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.parquet is damaged .*; delete it and run") as caught:
        read_outcomes(file)
    assert "\n" not in str(caught.value)
