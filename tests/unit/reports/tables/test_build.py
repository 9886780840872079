"""Every cell is one record, a dash, or an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cim_bench.records.record import Record
from cim_bench.reports.read.frames import INTERVAL, records_frame
from cim_bench.reports.stats.intervals import wilson_interval
from cim_bench.reports.tables.build import build
from cim_bench.reports.tables.footnotes import LINEAGE_FOOTNOTE
from cim_bench.reports.tables.table import Column, FilledTable, RowField, Table

Make = Callable[..., Record]

TABLE = Table(
    title="T",
    rows=(RowField(title="Method", name="name"), RowField(title="Data", name="benchmark")),
    columns=(
        Column(title="K", metric="top1", select={"evaluator": "knn"}, facets={"k": 20}),
        Column(title="F", metric="top1", select={"evaluator": "finetune"}),
    ),
)


def fill(*records: Record) -> FilledTable:
    return build(TABLE, records_frame(records))


def test_a_cell_shows_the_record_that_its_column_selects(make: Make) -> None:
    filled = fill(
        make(key="a", evaluator="knn", facets={"k": 10}, value=0.11, n=101),
        make(key="b", evaluator="knn", facets={"k": 20}, value=0.22, n=102),
        make(key="c", evaluator="finetune", value=0.33, n=103),
        make(key="d", evaluator="finetune", metric="top5", value=0.44, n=104),
        make(key="e", evaluator="linear_probe", value=0.55, n=105),
        make(key="f", name="other", evaluator="linear_probe", value=0.66, n=106),
    )
    (row,) = filled.rows  # `other` matches no column
    assert row.labels == ("cim", "photos")
    assert [(cell.value, cell.n, cell.keys) for cell in row.cells] == [
        (0.22, 102, ("b",)),
        (0.33, 103, ("c",)),
    ]
    assert (row.cells[0].low, row.cells[0].high) == wilson_interval(0.22, 102)


def test_missing_is_a_gap(make: Make) -> None:
    (row,) = fill(make(evaluator="finetune")).rows
    assert (row.cells[0].value, row.cells[0].keys, row.cells[0].footnotes) == (None, (), ())


def test_two_records_in_a_cell_are_an_error_naming_both(make: Make) -> None:
    one, two = make(key="a", facets={"k": 20}, seed=0), make(key="b", facets={"k": 20}, seed=1)
    with pytest.raises(ValueError, match=r"'cim / photos', column 'K': 'a' and 'b' \(they differ in key, seed\)"):
        fill(one, two)


def test_one_key_with_two_values_is_an_error(make: Make) -> None:
    with pytest.raises(ValueError, match="differ in value"):
        fill(make(facets={"k": 20}, value=0.1), make(facets={"k": 20}, value=0.2))


def test_a_copied_record_counts_once(make: Make) -> None:
    record = make(facets={"k": 20})
    (row,) = fill(record, record).rows
    assert row.cells[0].keys == ("k1",)


def test_versions_never_mix_in_a_column(make: Make) -> None:
    old, new = make(key="a", facets={"k": 20}, version=1), make(key="b", name="mae", facets={"k": 20}, version=2)
    with pytest.raises(ValueError, match=r"column 'K' mixes protocols: knn v1 \(record a\), knn v2 \(record b\)"):
        fill(old, new)


def test_a_failed_job_is_a_dash_with_its_error(make: Make) -> None:
    (row,) = fill(make(key="x", error="out of memory"), make(key="y", evaluator="finetune")).rows
    assert row.labels == ("cim", "photos")  # joins the row of its subject, though it has no benchmark
    assert (row.cells[0].value, row.cells[0].keys) == (None, ("x",))
    assert row.cells[0].footnotes == ("knn failed: out of memory",)


def test_a_subject_whose_jobs_all_failed_keeps_a_row(make: Make) -> None:
    jobs = make(key="x", name="mae", error="e1"), make(key="y", name="mae", evaluator="finetune", error="e2")
    (_, row) = fill(make(facets={"k": 20}), *jobs).rows
    assert row.labels == ("mae", "–")
    assert [cell.footnotes for cell in row.cells] == [("knn failed: e1",), ("finetune failed: e2",)]


def test_a_repeated_job_outlives_its_failure_and_another_does_not(make: Make) -> None:
    (row,) = fill(make(key="x", error="e"), make(key="x", facets={"k": 20})).rows
    assert row.cells[0].footnotes == ()
    (row,) = fill(make(key="z", error="e"), make(key="x", facets={"k": 20})).rows
    assert (row.cells[0].value, row.cells[0].footnotes) == (0.5, ("another job failed: e",))


def test_splits_never_share_a_row(make: Make) -> None:
    filled = fill(make(key="a", facets={"k": 20}), make(key="b", evaluator="finetune", split="test"))
    assert [[cell.keys for cell in row.cells] for row in filled.rows] == [[("a",), ()], [(), ("b",)]]


def test_measured_and_reported_never_share_a_row(make: Make) -> None:
    reported = make(key="", source="reported", evaluator="finetune", version=0, value=0.9)
    filled = fill(reported, make(evaluator="finetune", value=0.4), make(key="k2", facets={"k": 20}))
    assert [row.source for row in filled.rows] == ["measured", "reported"]
    assert [cell.value for cell in filled.rows[0].cells] == [0.5, 0.4]
    assert [cell.value for cell in filled.rows[1].cells] == [None, 0.9]
    assert filled.rows[1].cells[1].low is None


def test_best_is_among_measured_rows_of_one_benchmark(make: Make) -> None:
    filled = fill(
        make(key="a", name="a", facets={"k": 20}, value=0.2),
        make(key="b", name="b", facets={"k": 20}, value=0.3),
        make(key="c", name="c", facets={"k": 20}, value=0.9, benchmark="cifar10"),
        make(key="", name="d", facets={"k": 20}, value=0.8, source="reported", version=0),
    )
    assert [row.cells[0].best for row in filled.rows] == [False, True, False, False]


def test_a_row_of_different_checkpoints_says_so(make: Make) -> None:
    one, two = make(facets={"k": 20}, checkpoint="A"), make(key="k2", evaluator="finetune", checkpoint="B")
    (row,) = fill(one, two).rows
    assert [cell.footnotes for cell in row.cells] == [(LINEAGE_FOOTNOTE,), (LINEAGE_FOOTNOTE,)]


def test_no_binomial_interval_for_a_mean_of_ratios(make: Make) -> None:
    table = Table(title="", rows=TABLE.rows, columns=(Column(title="M", metric="miou", select={}),))
    (row,) = build(table, records_frame([make(metric="miou")])).rows
    assert (row.cells[0].value, row.cells[0].low, row.cells[0].high) == (0.5, None, None)


def test_a_given_interval_stands_instead_of_wilsons(make: Make) -> None:
    frame = records_frame([make(facets={"k": 20}), make(key="k2", name="mae", facets={"k": 20})])
    frame[INTERVAL] = [(0.1, 0.9), (None, None)]
    filled = build(TABLE, frame)
    assert [(row.cells[0].low, row.cells[0].high) for row in filled.rows] == [(0.1, 0.9), (None, None)]


def test_a_derived_row_without_a_value_is_a_gap_that_says_why(make: Make) -> None:
    frame = records_frame([make(facets={"k": 20}, warnings=["frost-2 is missing"])])
    frame["value"] = [None]
    (row,) = build(TABLE, frame).rows
    cell = row.cells[0]
    assert (cell.value, cell.n, cell.keys, cell.footnotes) == (None, None, ("k1",), ("frost-2 is missing",))


def test_a_failure_of_known_data_belongs_there_only(make: Make) -> None:
    known = [make(key=key, benchmark=name, facets={"k": 20}) for key, name in (("a", "photos"), ("b", "cifar10"))]
    frame = records_frame([*known, make(key="c", error="e")])
    frame["benchmark"] = ["photos", "cifar10", "cifar10"]
    frame["facets"] = [{"k": 20}] * 3
    filled = build(TABLE, frame)
    assert [row.cells[0].footnotes for row in filled.rows] == [(), ("another job failed: e",)]
