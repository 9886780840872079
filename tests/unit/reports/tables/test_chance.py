"""Columns in which nothing can be told from a guess; intervals by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cim_bench.records.record import Record
from cim_bench.reports.read.frames import records_frame
from cim_bench.reports.render.text import to_csv, to_markdown
from cim_bench.reports.tables.build import build
from cim_bench.reports.tables.table import Column, FilledTable, RowField, Table

Make = Callable[..., Record]
TABLE = Table(
    title="",
    rows=(RowField(title="Method", name="name"),),
    columns=(Column(title="k-NN", metric="top1", select={"evaluator": "knn"}),),
)
GUESS = "no number measured on photos can be told from a guess, which has 25 %: they rank nothing"


def fill(*records: Record) -> FilledTable:
    return build(TABLE, records_frame(records))


def notes(*records: Record) -> tuple[str, ...]:
    return fill(*records).table.columns[0].footnotes


def one(make: Make, name: str, value: float, **fields: object) -> Record:
    return make(**{"key": name, "name": name, "value": value, "n": 100, "chance": 0.25, **fields})


def test_all_at_chance(make: Make) -> None:
    """Wilson's interval of 30 of 100 is [21.9, 39.6], of 20 of 100 [13.3, 28.9]: both hold 25."""
    assert notes(one(make, "a", 0.30), one(make, "b", 0.20)) == (GUESS,)


@pytest.mark.parametrize(
    "other",
    [
        {"value": 0.40},  # [30.9, 49.8]: better
        {"value": 0.05},  # [2.2, 11.2]: worse than a guess, as under attack
        {"value": 0.25, "chance": None},  # an older record: nobody told how many classes there are
    ],
)
def test_one_that_is_not_is_enough(make: Make, other: dict[str, float]) -> None:
    assert notes(one(make, "a", 0.30), one(make, "b", **other)) == ()


def test_more_images_tell_more(make: Make) -> None:
    assert notes(one(make, "a", 0.30, n=1000)) == ()  # [27.2, 32.9]


def test_each_data_set_for_itself_and_published_numbers_never(make: Make) -> None:
    found = notes(
        one(make, "a", 0.30),
        one(make, "b", 0.90, benchmark="cifar10", chance=0.1),
        one(make, "", 0.25, source="reported", chance=None),
    )
    assert found == (GUESS,)


def test_it_stands_on_the_header_and_at_each_cell_of_the_csv(make: Make) -> None:
    filled = fill(one(make, "a", 0.30, warnings=["w"]))
    lines = to_markdown(filled).splitlines()
    assert "k-NN (%) ↑ ¹" in lines[2]
    assert lines[4].rstrip(" |").endswith("²")
    assert lines[-2:] == [f"- ¹ {GUESS}", "- ² w"]
    assert to_csv(filled).splitlines()[1].endswith(f'"w; {GUESS}"')
