"""Text of filled tables, byte for byte."""

from __future__ import annotations

import csv
from dataclasses import replace

from cim_bench.reports.render.text import CSV_HEADER, to_csv, to_markdown
from cim_bench.reports.tables.table import Cell, Column, FilledTable, Row, RowField, Table

TABLE = Table(
    title="Tiny",
    caption="Read me first.",
    rows=(RowField(title="Method", name="name"), RowField(title="Data", name="benchmark", with_n=True)),
    columns=(
        Column(title="k-NN", metric="top1", select={}),
        Column(title="mCE", metric="mce", select={}),
    ),
)
BEST = Cell(value=0.643, low=0.609, high=0.675, n=1720, keys=("key1",), footnotes=("with k=9",), best=True)
FILLED = FilledTable(
    table=TABLE,
    rows=(
        Row(
            labels=("c|m", "photos"),
            source="measured",
            cells=(BEST, Cell(value=0.4851, n=1720, keys=("key2",))),
        ),
        Row(
            labels=("mae", "photos"),
            source="measured",
            cells=(
                Cell(value=0.05, low=0.01, high=0.1, n=1720, keys=("key3",)),
                Cell(keys=("key4",), footnotes=("failed:\nno | space", "with k=9")),
            ),
        ),
        Row(labels=("CIM", "reported"), source="reported", cells=(Cell(value=0.831, n=50_000), Cell())),
    ),
)

MARKDOWN = """\
### Tiny

Read me first.

| Method | Data            | k-NN (%) ↑              | mCE ↓     |
|:-------|:----------------|:------------------------|:----------|
| c\\|m   | photos, n=1,720 | **64.3** [60.9, 67.5] ¹ | 0.485     |
| mae    | photos, n=1,720 |    5.0    [1.0, 10.0]   |     – ² ¹ |
| CIM    | reported        |   83.1                  |     –     |

- ¹ with k=9
- ² failed: no \\| space
"""


def test_markdown_golden() -> None:
    assert to_markdown(FILLED) == MARKDOWN


def test_counts_move_into_the_cells_where_they_differ() -> None:
    cells = (replace(BEST, n=10, footnotes=(), best=False), Cell(value=0.5, n=2000))
    filled = FilledTable(table=TABLE, rows=(Row(labels=("a", "b"), source="measured", cells=cells),))
    assert "| a      | b    | 64.3 [60.9, 67.5] n=10 | 0.500 n=2,000 |" in to_markdown(filled)


def test_more_than_nine_footnotes_stay_readable() -> None:
    cells = (Cell(footnotes=tuple(f"note {i}" for i in range(12))), Cell())
    text = to_markdown(FilledTable(table=TABLE, rows=(Row(labels=("a", "b"), source="measured", cells=cells),)))
    assert "⁹ ¹⁰ ¹¹ ¹²" in text
    assert "- ¹² note 11\n" in text


def test_an_empty_table_is_only_its_header() -> None:
    lines = to_markdown(FilledTable(table=TABLE, rows=())).splitlines()
    assert lines[-2] == "| Method | Data | k-NN (%) ↑ | mCE ↓ |"


def test_csv_traces_every_cell() -> None:
    lines = list(csv.DictReader(to_csv(FILLED).splitlines()))
    assert len(lines) == 6
    assert tuple(lines[0]) == CSV_HEADER
    assert lines[0] == {
        "row": "c|m / photos",
        "column": "k-NN",
        "value": "0.643",
        "low": "0.609",
        "high": "0.675",
        "n": "1720",
        "key": "key1",
        "source": "measured",
        "footnotes": "with k=9",
    }
    assert (lines[3]["value"], lines[3]["key"]) == ("", "key4")
    assert (lines[4]["value"], lines[4]["source"], lines[4]["key"]) == ("0.831", "reported", "")


def test_a_ratio_may_be_printed_in_percent() -> None:
    table = replace(TABLE, columns=(Column(title="mCE", metric="mce", select={}, percent=True),))
    row = Row(labels=("a", "b"), source="measured", cells=(Cell(value=0.4851, low=0.4, high=0.5, n=7),))
    text = to_markdown(FilledTable(table=table, rows=(row,)))
    assert "| mCE (%) ↓         |" in text
    assert "| 48.5 [40.0, 50.0] |" in text


def test_differences_have_a_sign_and_points() -> None:
    columns = tuple(Column(title="D", metric=metric, select={}, difference=True) for metric in ("top1", "mce"))
    cells = [Cell(value=0.0042, source="measured"), Cell(value=-0.05)], [Cell(value=-0.0001), Cell()]
    rows = tuple(Row(labels=("a", "b"), source="reported", cells=tuple(pair)) for pair in cells)
    filled = FilledTable(table=replace(TABLE, columns=columns), rows=rows)
    text = to_markdown(filled)
    assert "| D (points) ↑ | D ↓    |" in text
    assert "| +0.4         | -0.050 |" in text
    assert "| +0.0         |      – |" in text  # not -0.0
    assert [line["source"] for line in csv.DictReader(to_csv(filled).splitlines())] == ["measured", *["reported"] * 3]
