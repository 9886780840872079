"""Declarations that could never match a record are refused at once."""

from __future__ import annotations

import pytest

from cim_bench.reports.tables.table import Cell, Column, FilledTable, Row, RowField, Table


def test_unknown_field_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"K: a record has no field 'evaluater'.*evaluator"):
        Column(title="K", metric="top1", select={"evaluater": "knn"})
    with pytest.raises(ValueError, match=r"Data: .*'dataset'.*benchmark"):
        RowField(title="Data", name="dataset")


def test_unknown_metric_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'top-1'.*top1"):
        Column(title="K", metric="top-1", select={})


def test_labels_carry_remarks_too() -> None:
    row = Row(labels=("vit", "photos"), notes=("depth=6", ""), source="measured", cells=(Cell(footnotes=("x",)),))
    assert row.name == "vit (depth=6) / photos"
    assert row.remarks == ("depth=6", "x")


def test_equal_remarks_share_a_number() -> None:
    cells = [Cell(footnotes=("b", "a")), Cell(footnotes=("a",)), Cell(footnotes=("c", "b"))]
    rows = tuple(Row(labels=(), source="measured", cells=(cell,)) for cell in cells)
    assert FilledTable(table=Table(title="", rows=(), columns=()), rows=rows).footnotes == ("b", "a", "c")
