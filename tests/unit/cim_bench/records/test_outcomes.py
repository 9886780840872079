"""Outcomes of samples: what is written comes back, counts are exact, damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cim_bench.records.facets import Facets
from cim_bench.records.outcomes import (
    Count,
    constant_answers,
    facets_by_column,
    outcome_files,
    outcomes_file,
    read_outcomes,
    tally,
    write_outcomes,
)
from cim_bench.records.record import ProtocolInfo

PLAIN = ProtocolInfo(evaluator="knn", version=1)
ATTACKS = ProtocolInfo(evaluator="adversarial", version=1, settings={"eps": [0.1, 1 / 3]})
PGD: Facets = {"attack": "pgd", "eps": 1 / 3}


def test_written_and_read(tmp_path: Path) -> None:
    file = outcomes_file(tmp_path, "a")
    write_outcomes(file, ["x", "y"], np.array([3, 1]), [({}, np.array([3, 0])), ({"k": 5}, np.array([-1, 1]))], PLAIN)
    table = read_outcomes(file)
    assert file == tmp_path / "outcomes" / "a.parquet"
    assert table.to_pydict() == {"id": ["x", "y"], "label": [3, 1], "prediction": [3, 0], "k=5": [-1, 1]}
    assert facets_by_column(table, PLAIN) == {"prediction": {}, "k=5": {"k": 5}}


def test_numbers_are_kept_exactly(tmp_path: Path) -> None:
    file = outcomes_file(tmp_path, "a")
    write_outcomes(file, ["x"], np.array([3]), [(PGD, np.array([3]))], ATTACKS)
    assert facets_by_column(read_outcomes(file), PLAIN) == {"pgd eps=85/255": PGD}


def test_names_without_facets_are_told_by_the_protocol(tmp_path: Path) -> None:
    """As version 0.1.0 wrote them."""
    names = ("clean", "pgd", "pgd eps=85/255")
    table = pa.table({"id": ["x"], "label": [1], **{name: [1] for name in names}})
    assert facets_by_column(table, ATTACKS) == {
        "clean": {"attack": "clean"},
        "pgd": {"attack": "pgd", "eps": 0.1},
        "pgd eps=85/255": PGD,
    }


@given(st.lists(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 2)), max_size=8), max_size=4))
def test_tally_counts_over_parts(tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[int, int]]]) -> None:
    folder = tmp_path_factory.mktemp("tally")
    for number, rows in enumerate(parts):
        guesses, labels = (np.array([row[k] for row in rows], dtype=np.int64) for k in (0, 1))
        file = outcomes_file(folder, str(number))
        write_outcomes(file, [str(i) for i in range(len(rows))], labels, [({"k": 7}, guesses)], PLAIN)
    found = tally((outcomes_file(folder, str(number)) for number in range(len(parts))), PLAIN)
    flat = [row for rows in parts for row in rows]
    assert found == ([Count({"k": 7}, sum(a == b for a, b in flat), len(flat))] if parts else [])


def test_parts_of_an_earlier_version_count_together_with_later_ones(tmp_path: Path) -> None:
    old, new = (outcomes_file(tmp_path, name) for name in ("0", "1"))
    write_outcomes(new, ["b", "c"], np.array([0, 1]), [(PGD, np.array([0, 0]))], ATTACKS)
    pq.write_table(pa.table({"id": ["a"], "label": [2], "pgd eps=85/255": [2]}), old)
    assert tally([old, new], ATTACKS) == [Count(PGD, 2, 3)]


@pytest.mark.parametrize(
    ("several", "message"),
    [
        ([{"k": 5}, {"k": 5}], "both called 'k=5'; make them differ more"),
        ([{"attack": "pgd", "eps": 0.2}, {"attack": "pgd", "eps": 0.2 + 1e-12}], "both called 'pgd eps=51/255'"),
        ([{"mypkg.name": "label"}], "both called 'label'"),
        ([{"stride": 4}], "no facet is called 'stride'"),
    ],
)
def test_facets_that_would_share_a_column_are_refused(several: list[Facets], message: str, tmp_path: Path) -> None:
    file = outcomes_file(tmp_path, "a")
    with pytest.raises(ValueError, match=message):
        write_outcomes(file, ["x"], np.array([0]), [(facets, np.array([0])) for facets in several], ATTACKS)
    assert not file.exists()


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", b"\0" * 100])
def test_damage_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.parquet is damaged .*; delete it and run") as caught:
        read_outcomes(file)
    assert "\n" not in str(caught.value)


def test_other_tables_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": ["a"], "value": [0]}), file)
    with pytest.raises(ValueError, match=r"x\.parquet has no column label"):
        read_outcomes(file)
    pq.write_table(pa.table({"id": ["a"], "label": [0], "fgsm": [0.5]}), file)
    with pytest.raises(ValueError, match="column 'fgsm' does not hold whole numbers"):
        read_outcomes(file)


def test_constant_answers_are_told(tmp_path: Path) -> None:
    protocol = ProtocolInfo(evaluator="knn", version=1)

    def told(*parts: tuple[list[int], dict[int, list[int]]]) -> str:
        for number, (labels, answers) in enumerate(parts):
            ids = [f"{number}/{place}" for place in range(len(labels))]
            found = [({"k": k}, np.array(values)) for k, values in answers.items()]
            write_outcomes(outcomes_file(tmp_path, str(number)), ids, np.array(labels), found, protocol)
        return constant_answers(outcome_files(tmp_path), protocol)

    assert told(([0, 1], {1: [0, 0]})) == "all images got the same answer: the model does not tell them apart"
    assert told(([0, 1], {1: [0, 0], 5: [0, 1]})) == (
        "all images got the same answer under k=1: the model does not tell them apart"
    )
    assert told(([0, 1], {1: [0, 1]})) == ""
    assert told(([0, 0], {1: [0, 0]})) == ""  # all of them may well be of that class
    assert told(([0, 0], {1: [0, 0]}), ([1, 1], {1: [1, 1]})) == ""  # in parts that are sorted by class
    assert told(([0, 0], {1: [0, 0]}), ([1, 1], {1: [0, 0]})) != ""
