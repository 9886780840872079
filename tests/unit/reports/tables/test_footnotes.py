"""Footnotes of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cim_bench.records.facets import as_255
from cim_bench.records.record import Record
from cim_bench.reports.read.frames import records_frame
from cim_bench.reports.tables.footnotes import failure_footnote, one_lineage, pretext_footnote, record_footnotes
from cim_bench.reports.tables.table import Column

COLUMN = Column(title="K", metric="top1", select={}, settings={"k": 5})


def _flat(record: Record) -> dict[str, Any]:
    return {str(name): value for name, value in records_frame([record]).to_dict("records")[0].items()}


def test_only_deviations_from_the_column_are_footnotes(make: Callable[..., Record]) -> None:
    as_declared = make(settings={"k": 5, "t": 0.1}, passed={"k": 5})
    assert record_footnotes(COLUMN, _flat(as_declared)) == []
    other = make(settings={"k": 9, "t": 0.1}, passed={"k": 9, "t": 0.1})
    assert record_footnotes(COLUMN, _flat(other)) == ["knn with k=9, t=0.1"]
    default = make(settings={"k": 20}, passed={})  # the evaluator's default is not what the column expects
    assert record_footnotes(COLUMN, _flat(default)) == ["knn with k=20"]


def test_nested_settings_are_found_by_their_dotted_name(make: Callable[..., Record]) -> None:
    column = Column(title="K", metric="top1", select={}, settings={"training.epochs": 90})
    nested = {"training": {"epochs": 90, "lr": 0.1}}
    assert record_footnotes(column, _flat(make(settings=nested))) == []
    changed = make(settings={"training": {"epochs": 9}}, passed={"training.epochs": 9})
    assert record_footnotes(column, _flat(changed)) == ["knn with training.epochs=9"]
    assert record_footnotes(column, _flat(make(settings={}))) == ["knn with training.epochs=None"]


def test_selection_partial_and_warnings_are_footnotes(make: Callable[..., Record]) -> None:
    record = make(settings={"k": 5}, selection="best_on:val", partial=True, warnings=["small bank", "odd"])
    assert record_footnotes(COLUMN, _flat(record)) == [
        "epoch chosen by best_on:val, not the last",
        "only a part of the samples was measured",
        "small bank",
        "odd",
    ]


def test_a_published_number_follows_its_own_protocol(make: Callable[..., Record]) -> None:
    assert record_footnotes(COLUMN, _flat(make(source="reported"))) == []


def test_failures_give_their_reason(make: Callable[..., Record]) -> None:
    assert failure_footnote(_flat(make(error="loss is nan"))) == "knn failed: loss is nan"
    assert failure_footnote(_flat(make(error="")), other=True) == "another job failed: no reason recorded"


def test_children_of_a_checkpoint_are_its_family(make: Callable[..., Record]) -> None:
    backbone, child = make(checkpoint="A"), make(checkpoint="C", parent="A")
    assert one_lineage([_flat(backbone), _flat(child), _flat(make())])
    assert not one_lineage([_flat(backbone), _flat(make(checkpoint="B"))])
    assert one_lineage([])


def test_sizes_of_attacks_are_in_255ths(make: Callable[..., Record]) -> None:
    sizes = (4 / 255, 0.5 / 255, 8 / 255 / 3, 0.0)
    assert [as_255(eps) for eps in sizes] == ["4/255", "0.5/255", "2.66667/255", "0/255"]
    column = Column(title="FGSM", metric="top1", select={})
    passed = {"eps": [2 / 255, 4 / 255], "alpha": 1 / 255, "steps": 3}
    (footnote,) = record_footnotes(column, _flat(make(evaluator="adversarial", passed=passed)))
    assert footnote == "adversarial with alpha=1/255, eps=2/255, 4/255, steps=3"
    (footnote,) = record_footnotes(column, _flat(make(evaluator="finetune", passed={"eps": 1e-8})))  # an optimiser's
    assert footnote == "finetune with eps=1e-08"


def test_settings_of_the_pretext_are_told_apart_from_the_protocols(make: Callable[..., Record]) -> None:
    record = _flat(make(method="CIM", pretext_passed={"photometric": False, "max_degrees": 0}, passed={"k": 9}))
    assert pretext_footnote(record) == "CIM with max_degrees=0, photometric=False"
    assert record_footnotes(COLUMN, record) == ["knn with k=9"]
    assert pretext_footnote(_flat(make(passed={"k": 9}))) == ""
