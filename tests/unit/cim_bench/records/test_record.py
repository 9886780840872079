from __future__ import annotations

import dataclasses
import errno
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cim_bench.common.files import write_atomic
from cim_bench.common.hashing import stable_hash
from cim_bench.records.facets import FACETS
from cim_bench.records.keys import job_key
from cim_bench.records.measurement import METRICS, Measurement
from cim_bench.records.record import ProtocolInfo, Provenance, Record, SubjectInfo
from cim_bench.records.store import RECORDS_FILE, read_records, write_records

words = st.text(max_size=12)
values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), words)
knobs = st.dictionaries(
    words, st.recursive(values, lambda v: st.one_of(st.lists(v), st.dictionaries(words, v)), max_leaves=4)
)
measurements = st.builds(
    Measurement,
    benchmark=words,
    split=words,
    metric=st.sampled_from(sorted(METRICS)),
    value=st.floats(0, 1),
    n=st.integers(1, 10**9),
    facets=st.dictionaries(
        st.sampled_from(sorted(FACETS)) | words.map("pkg.{}".format),
        words | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    ),
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    failed = draw(st.booleans())
    return Record(
        key=draw(words),
        subject=SubjectInfo(
            name=draw(words), method=draw(words), arch=draw(words), epochs=draw(st.none() | st.floats(0, 1e4))
        ),
        protocol=ProtocolInfo(
            evaluator=draw(words), version=draw(st.integers()), settings=draw(knobs), passed=draw(knobs)
        ),
        provenance=Provenance(
            source=draw(st.sampled_from(["measured", "reported"])),
            status="failed" if failed else "ok",
            error=draw(words),
            seed=draw(st.none() | st.integers()),
            packages=draw(st.dictionaries(words, words)),
            duration_s=draw(st.none() | st.floats(0, 1e6)),
        ),
        measurement=None if failed else draw(measurements),
        warnings=tuple(draw(st.lists(words))),
    )


def measurement(**changes: Any) -> Measurement:
    known: dict[str, Any] = {"benchmark": "photos", "split": "val", "metric": "top1", "value": 0.5, "n": 4}
    return Measurement(**(known | changes))


def record(**changes: Any) -> Record:
    made = Record(
        key="k",
        subject=SubjectInfo(name="CIM", method="CIM", arch="vit"),
        protocol=ProtocolInfo(evaluator="knn", version=1),
        provenance=Provenance(source="measured"),
        measurement=measurement(),
    )
    return dataclasses.replace(made, **changes)


@given(records())
def test_a_record_survives_the_round_trip(made: Record) -> None:
    line = made.to_json()
    assert "\n" not in line
    assert len(line.splitlines()) == 1
    assert Record.from_json(line) == made
    assert Record.from_json(line).to_json() == line


@given(st.lists(records(), max_size=4))
def test_a_file_of_records_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, made: list[Record]
) -> None:
    folder = tmp_path_factory.mktemp("records")
    write_records(folder, made)
    assert list(read_records(folder)) == made
    assert list(read_records(folder / RECORDS_FILE)) == made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "top2"}, "'top2' is not known; choose one of .*top1"),
        ({"value": math.nan}, "top1 on photos/val is nan"),
        ({"value": math.inf}, r"outside \[0.0, 1.0\]"),
        ({"value": 1.0001}, r"1\.0001, outside"),
        ({"value": -0.1}, "outside"),
        ({"value": 73.2}, "outside"),
        ({"n": 0}, "n=0 samples; nothing was measured"),
        ({"n": -1}, "n=-1"),
        (
            {"facets": {"epsilon": 0.1}},
            r"no facet is called 'epsilon'; choose one of k, block, attack, eps, .*mypkg\.epsilon",
        ),
        ({"facets": {"": "x"}}, "no facet is called ''"),
        ({"facets": {"eps": math.nan}}, "facet 'eps' is nan; give a finite number"),
        ({"facets": {"k": True}}, "facet 'k' is True, a bool; give a text or a number"),
        ({"facets": {"mypkg.k": None}}, "facet 'mypkg.k' is None, a NoneType"),
    ],
)
def test_a_number_that_means_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        measurement(**changes)
    assert "\n" not in str(caught.value)


@given(st.sampled_from(sorted(METRICS)), st.floats())
def test_exactly_the_values_in_range_are_taken(metric: str, value: float) -> None:
    allowed = METRICS[metric].low <= value <= METRICS[metric].high and math.isfinite(value)
    if allowed:
        assert measurement(metric=metric, value=value).value == value
    else:
        with pytest.raises(ValueError, match=metric):
            measurement(metric=metric, value=value)


def test_a_measurement_is_there_exactly_where_the_job_did_not_fail() -> None:
    with pytest.raises(ValueError, match="did not fail"):
        record(measurement=None)
    with pytest.raises(ValueError, match="did not fail"):
        record(provenance=Provenance(source="measured", status="failed"))


def test_another_schema_is_refused() -> None:
    line = json.dumps(json.loads(record().to_json()) | {"schema": 3})
    with pytest.raises(ValueError, match="schema 3 is not 2"):
        Record.from_json(line)


PARTS: dict[str, Any] = {
    "weights": "w",
    "evaluator": "knn",
    "version": 1,
    "settings": {"k": [10, 20], "temperature": 0.07},
    "data": "d",
    "seed": 0,
}


def key_of(**changes: Any) -> str:
    parts = PARTS | changes
    protocol = ProtocolInfo(**{name: parts[name] for name in ("evaluator", "version", "settings")})
    return job_key(weights=parts["weights"], protocol=protocol, data=parts["data"], seed=parts["seed"])


def test_each_ingredient_changes_the_job_key() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"weights": "v"},
        {"evaluator": "linear_probe"},
        {"version": 2},
        {"settings": {"k": [20, 10], "temperature": 0.07}},
        {"settings": {"k": [10, 20], "temperature": 0.08}},
        {"settings": {}},
        {"data": "e"},
        {"seed": 1},
    ]
    assert len({key_of(**change) for change in changes}) == len(changes)


@given(knobs, st.randoms())
def test_the_order_of_keys_does_not_change_hash_or_job_key(settings: dict[str, Any], random: Any) -> None:
    items = list(settings.items())
    random.shuffle(items)
    assert stable_hash(dict(items)) == stable_hash(settings)
    assert key_of(settings=dict(items)) == key_of(settings=settings)


def test_how_a_knob_was_passed_does_not_change_the_job_key() -> None:
    plain = ProtocolInfo(evaluator="knn", version=1, settings={"k": 5})
    passed = dataclasses.replace(plain, passed={"k": 5})
    keys = {job_key(weights="w", protocol=p, data="d", seed=0) for p in (plain, passed)}
    assert len(keys) == 1


def test_write_atomic_makes_folders_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_file_and_is_named(tiny_disk: Path) -> None:
    path = tiny_disk / "records.jsonl"
    write_atomic(path, "old")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomic(path, b"x" * 200_000)
    assert caught.value.errno == errno.ENOSPC
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert list(tiny_disk.iterdir()) == [path]


def test_a_read_only_disk_is_named(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    path = tiny_disk / "job" / "records.jsonl"
    with pytest.raises(OSError, match="Read-only file system; free space or choose another") as caught:
        write_atomic(path, "new")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / "records.jsonl"
    with pytest.raises(OSError, match=r"Not a directory|File exists") as caught:
        write_records(path.parent, [record()])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "line",
    [
        *("", "{", "null", "[]", "3", '"text"', "{}", '{"schema": 1}', '{"schema": 1, "key": "k", "subject": 3}'),
        *('{"schema": 1, "measurement": 3}', '{"schema": 1, "measurement": {"variant": "k=1"}, "protocol": []}'),
        *('{"schema": 2}', '{"schema": 2, "key": "k", "subject": 3}'),
    ],
)
def test_a_damaged_line_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "job" / RECORDS_FILE
    file.parent.mkdir()
    file.write_text(f"{record().to_json()}\n{line}\n{record().to_json()}\n")
    reader = read_records(tmp_path)
    assert next(reader) == record()
    with pytest.raises(ValueError, match=f"{file}, line 2: ") as caught:
        next(reader)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["subject", "measurement", "protocol", "provenance"])
def test_a_field_that_does_not_exist_is_refused(part: str) -> None:
    raw = json.loads(record().to_json())
    raw[part]["colour"] = "red"
    with pytest.raises(ValueError, match=r"not a record: .*colour"):
        Record.from_json(json.dumps(raw))


def test_a_file_cut_in_the_middle_of_a_line_is_refused(tmp_path: Path) -> None:
    file = tmp_path / RECORDS_FILE
    file.write_text(record().to_json()[:-20])
    with pytest.raises(ValueError, match="line 1"):
        list(read_records(file))


def test_bytes_that_are_no_text_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / RECORDS_FILE
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=str(file)):
        list(read_records(file))


def test_no_records_at_all_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no records at .*missing; give a file or folder"):
        list(read_records(tmp_path / "missing"))


def test_files_are_read_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_records(tmp_path / name, [record(key=name)])
    assert [r.key for r in read_records(tmp_path)] == ["a", "b", "c"]
