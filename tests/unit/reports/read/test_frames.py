"""Flat records and the published ones."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from cim_bench.records.facets import facet_key
from cim_bench.records.measurement import METRICS, Measurement
from cim_bench.records.record import ProtocolInfo, Provenance, Record, SubjectInfo
from cim_bench.records.store import read_records, read_runs, write_records
from cim_bench.reports.read.frames import (
    FIELDS,
    MEASUREMENT_FIELDS,
    PLACE_FIELDS,
    PRETEXTS,
    flat_records,
    records_frame,
)
from cim_bench.reports.read.published import published_records


def test_every_column_reads_its_own_field() -> None:
    # Every field has a value of its own, so that a column reading its neighbour shows.
    record = Record(
        key="KEY",
        subject=SubjectInfo(
            name="NAME",
            method="MAE",
            arch="resnet50@160",
            epochs=7.0,
            checkpoint="CKPT",
            parent="PARENT",
            pretrain_data="PREDATA",
            passed={"c": 3},
            job="JOB",
        ),
        protocol=ProtocolInfo(
            evaluator="finetune",
            version=3,
            settings={"training": {"epochs": 9}},
            passed={"b": 2},
            selection="best_on:x",
            partial=True,
        ),
        provenance=Provenance(
            source="measured",
            citation="CITE",
            status="ok",
            error="ERROR",
            seed=11,
            commit="COMMIT",
            dirty=False,
            packages={"torch": "9"},
            device="DEVICE",
            micro_batch=17,
            duration_s=1.5,
            data="DATA",
            time="TIME",
        ),
        measurement=Measurement(
            benchmark="BENCH", split="SPLIT", metric="miou", value=0.25, n=13, facets={"k": 5}, chance=0.125
        ),
        warnings=("W1", "W2"),
    )
    assert records_frame([record]).to_dict("records") == [
        {
            "key": "KEY",
            "name": "NAME",
            "method": "MAE",
            "pretext": "MIM",
            "pretext_passed": {"c": 3},
            "arch": "resnet50@160",
            "family": "resnet50",
            "epochs": 7.0,
            "checkpoint": "CKPT",
            "parent": "PARENT",
            "pretrain_data": "PREDATA",
            "job": "JOB",
            "evaluator": "finetune",
            "version": 3,
            "settings": {"training": {"epochs": 9}},
            "passed": {"b": 2},
            "selection": "best_on:x",
            "partial": True,
            "finetune_epochs": 9.0,
            "benchmark": "BENCH",
            "split": "SPLIT",
            "metric": "miou",
            "facets": {"k": 5},
            "value": 0.25,
            "n": 13,
            "chance": 0.125,
            "dataset": "BENCH",
            "base": "BENCH",
            "shift": "",
            "corruption_source": "",
            "further_eps": "",
            "source": "measured",
            "citation": "CITE",
            "status": "ok",
            "error": "ERROR",
            "seed": 11,
            "commit": "COMMIT",
            "dirty": False,
            "packages": {"torch": "9"},
            "device": "DEVICE",
            "micro_batch": 17,
            "duration_s": 1.5,
            "data": "DATA",
            "time": "TIME",
            "warnings": ("W1", "W2"),
        }
    ]


def test_no_record_field_is_forgotten() -> None:
    parts = (SubjectInfo, ProtocolInfo, Provenance, Measurement)
    fields = [name for part in parts for name in part.__dataclass_fields__]
    fields.remove("passed")  # the subject's, under another name
    derived = ["pretext", "pretext_passed", "family", "finetune_epochs", *PLACE_FIELDS]
    assert sorted(FIELDS) == sorted([*fields, "key", "warnings", *derived])
    assert len(set(fields)) == len(fields)  # flattening loses nothing


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"evaluator": "shifts", "benchmark": "photos-a"}, ("photos-a", "photos", "a", "", "")),
        ({"evaluator": "shifts", "benchmark": "imagenet-v2"}, ("imagenet-v2", "imagenet-1k", "v2", "", "")),
        ({"evaluator": "shifts", "benchmark": "cartoons"}, ("cartoons", "cartoons", "", "", "")),
        ({"evaluator": "shifts", "benchmark": "photos-c"}, ("photos-c", "photos-c", "", "", "")),
        ({"evaluator": "adversarial", "benchmark": "photos-a"}, ("photos-a", "photos-a", "", "", "")),
        ({"evaluator": "corruptions", "benchmark": "imagenet-c"}, ("imagenet-c", "imagenet-1k", "", "released", "")),
        (
            {"evaluator": "corruptions", "benchmark": "photos-c", "settings": {"source": "generated"}},
            ("photos-c", "photos", "", "generated", ""),  # the settings say so, whatever the name
        ),
        ({"facets": {"attack": "pgd", "eps": 0.1}, "settings": {"eps": [0.1]}}, ("photos", "photos", "", "", "")),
        (
            {"facets": {"attack": "pgd", "eps": 8 / 255}, "settings": {"eps": [0.1, 8 / 255]}},
            ("photos", "photos", "", "", "8/255"),
        ),
        ({"facets": {"attack": "pgd"}}, ("photos", "photos", "", "", "")),
        (
            {"evaluator": "shifts", "settings": {"data": {"name": "photos-r"}}, "error": "e"},
            ("photos-r", "photos", "r", "", None),
        ),
        ({"evaluator": "shifts", "error": "e"}, (None, None, None, "", None)),
        (
            {"evaluator": "corruptions", "settings": {"source": "generated", "data": {"name": "x-c"}}, "error": "e"},
            (None, None, "", "generated", None),
        ),
    ],
)
def test_where_a_number_belongs(make: Callable[..., Record], fields: dict[str, Any], place: tuple[str | None]) -> None:
    (row,) = flat_records(records_frame([make(**fields)]))
    assert tuple(row[name] for name in PLACE_FIELDS) == place


def test_a_failed_record_has_no_number(make: Callable[..., Record]) -> None:
    (row,) = records_frame([make(error="disk full")]).to_dict("records")
    assert all(row[name] is None for name in MEASUREMENT_FIELDS)
    assert (row["status"], row["error"]) == ("failed", "disk full")


def test_no_records_make_an_empty_frame() -> None:
    frame = records_frame([])
    assert frame.empty
    assert tuple(frame.columns) == FIELDS


def test_many_records_survive_the_disk(make: Callable[..., Record], tmp_path: Path) -> None:
    records = [make(key=f"k{i:05}", n=i + 1, epochs=None) for i in range(1000)]
    write_records(tmp_path / "job", records)
    frame = records_frame(read_records(tmp_path))
    assert list(frame["n"]) == list(range(1, 1001))
    assert set(frame["epochs"]) == {None}


def _value(table: str, arch: str, method: str, metric: str) -> float:
    (found,) = [
        record.measurement.value
        for record in published_records(table)
        if record.measurement
        and (record.subject.arch, record.subject.method, record.measurement.metric) == (arch, method, metric)
    ]
    return found


def test_published_values() -> None:
    assert _value("imagenet-vit", "vit_base", "CIM", "top1") == 0.831
    assert _value("imagenet-vit", "vit_small", "MAE", "top1") == 0.806
    assert _value("ade20k", "vit_base", "CIM", "miou") == 0.481
    assert _value("robustness", "resnet50", "CIM", "mce") == 0.735


def test_published_rows_all_load_once_and_cite() -> None:
    records = published_records()
    text = resources.files("cim_bench.reports.read").joinpath("published.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(records) == len(rows) == 74
    for record, row in zip(records, rows, strict=True):
        assert record.measurement is not None
        assert record.measurement.metric in METRICS
        assert record.measurement.value * 100 == pytest.approx(float(row["value"]))
        assert (record.provenance.source, record.key) == ("reported", "")
        assert "CVPR 2023" in record.provenance.citation
        assert record.protocol.settings["table"] == row["table"]
        assert (row["warning"] in record.warnings) == bool(row["warning"])
        if row["pretext"]:
            assert PRETEXTS[row["method"].casefold()] == row["pretext"]


def test_every_published_method_has_a_family() -> None:
    methods = {record.subject.method.casefold() for record in published_records()}
    assert methods - PRETEXTS.keys() == set()
    assert len(methods) == 16


def test_fine_tuning_epochs_of_measured_and_published(make: Callable[..., Record]) -> None:
    trained = {"settings": {"training": {"epochs": 90}}}
    frame = records_frame([make(evaluator="finetune", **trained), make(evaluator="linear_probe", **trained), make()])
    assert list(frame["finetune_epochs"]) == [90.0, None, None]
    published = records_frame(published_records("imagenet-cnn"))["finetune_epochs"]
    assert Counter(published) == {100.0: 3, 300.0: 8}


def test_published_robustness_rows_are_told_apart() -> None:
    places = Counter(
        (r.subject.arch, r.subject.method, m.benchmark, m.metric, facet_key(m.facets), r.protocol.evaluator)
        for r in published_records("robustness")
        if (m := r.measurement)
    )
    assert len(places) == 42
    assert set(places.values()) == {1}
    attacks = {
        m.facets["attack"]: m.value
        for r in published_records("robustness")
        if (m := r.measurement) and r.subject.name == "CIM" and r.subject.arch == "vit_base" and m.facets
    }
    assert attacks == {"fgsm": 0.474, "pgd": 0.227}


def test_published_refuses_an_unknown_table() -> None:
    with pytest.raises(ValueError, match=r"'vit'.*imagenet-vit, imagenet-cnn, ade20k, robustness"):
        published_records("vit")


def test_records_know_their_job_folder(make: Callable[..., Record], tmp_path: Path) -> None:
    write_records(tmp_path / "CIM" / "knn-1", [make(key="a"), make(key="a", facets={"k": 10})])
    write_records(tmp_path / "CIM" / "shifts-2" / "partial", [make(key="b", partial=True)])
    found = [(record.key, folder.name) for record, folder in read_runs(tmp_path)]
    assert found == [("a", "knn-1"), ("a", "knn-1"), ("b", "shifts-2")]
    assert [folder.name for _, folder in read_runs(tmp_path / "CIM" / "knn-1" / "records.jsonl")] == ["knn-1"] * 2


def test_partial_records_give_way_to_the_complete_ones(make: Callable[..., Record], tmp_path: Path) -> None:
    write_records(tmp_path / "job" / "partial", [make(partial=True, value=0.4)])
    assert [record.measurement.value for record, _ in read_runs(tmp_path) if record.measurement] == [0.4]
    write_records(tmp_path / "job", [make(value=0.5)])
    assert [record.measurement.value for record, _ in read_runs(tmp_path) if record.measurement] == [0.5]


def test_no_runs_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no records at"):
        read_runs(tmp_path / "absent")


def test_flat_records_are_the_rows(make: Callable[..., Record]) -> None:
    frame = records_frame([make(), make(key="k2", error="e")])
    assert flat_records(frame) == frame.to_dict("records")
