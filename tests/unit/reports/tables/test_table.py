"""Declarations that could never match a record are refused at once."""

from __future__ import annotations

import pytest

from cim_bench.reports.tables.table import ANY, Cell, Column, FilledTable, Row, RowField, Table


def test_unknown_field_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"K: a record has no field 'evaluater'.*evaluator"):
        Column(title="K", metric="top1", select={"evaluater": "knn"})
    with pytest.raises(ValueError, match=r"Data: .*'data_set'.*benchmark"):
        RowField(title="Data", name="data_set")


def test_unknown_facet_lists_the_choices() -> None:
    sentence = r"FGSM: no facet is called 'atack'; choose one of k, block, attack, .*mypkg\.atack"
    with pytest.raises(ValueError, match=sentence):
        Column(title="FGSM", metric="top1", select={}, facets={"atack": "fgsm"})
    assert Column(title="S", metric="top1", select={}, facets={"mypkg.stride": 4}).fits({"mypkg.stride": 4})


@pytest.mark.parametrize(
    ("facets", "fits"),
    [
        ({"attack": "fgsm", "eps": 1 / 255}, True),
        ({"attack": "fgsm", "eps": 8 / 255}, True),
        ({"attack": "fgsm"}, True),  # published: nobody tells the size
        ({"attack": "pgd", "eps": 1 / 255}, False),
        ({"eps": 1 / 255}, False),
        ({"attack": "fgsm", "eps": 1 / 255, "severity": 1}, False),
        ({}, False),
    ],
)
def test_facets_are_exactly_those_of_the_column(facets: dict[str, str | float], fits: bool) -> None:
    column = Column(title="FGSM", metric="top1", select={}, facets={"attack": "fgsm", "eps": ANY})
    assert column.fits(facets) is fits


def test_a_column_without_facets_takes_records_without_any() -> None:
    column = Column(title="F", metric="top1", select={"evaluator": "finetune"})
    assert column.fits({})
    assert not column.fits({"k": 20})


def test_unknown_metric_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'top-1'.*top1"):
        Column(title="K", metric="top-1", select={})


def test_labels_carry_footnotes_too() -> None:
    cells = (Cell(footnotes=("x",)),)
    row = Row(labels=("vit", "photos"), label_footnotes=("depth=6", ""), source="measured", cells=cells)
    assert row.name == "vit (depth=6) / photos"
    assert row.footnotes == ("depth=6", "x")


def test_equal_footnotes_share_a_number() -> None:
    cells = [Cell(footnotes=("b", "a")), Cell(footnotes=("a",)), Cell(footnotes=("c", "b"))]
    rows = tuple(Row(labels=(), source="measured", cells=(cell,)) for cell in cells)
    assert FilledTable(table=Table(title="", rows=(), columns=()), rows=rows).footnotes == ("b", "a", "c")
