"""Derived rows of corruption jobs: values, intervals, gaps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cim_bench.records.record import Record
from cim_bench.reports.read.frames import INTERVAL, flat_records, records_frame
from cim_bench.reports.stats.intervals import mean_interval
from cim_bench.reports.stats.mce import ALEXNET_ERRORS, VARIANTS, by_corruption, image_mce, mce, relative_mce
from cim_bench.reports.tables.corruption_summaries import base_of, is_generated, with_corruption_summaries

Write = Callable[..., list[Record]]
JOB = {"evaluator": "corruptions", "benchmark": "photos-c-generated", "split": "test"}


def mce_interval(wrong: Any, total: int | None = None) -> tuple[float, float]:
    """Of the mean of the images' shares, as the rows of the report have it."""
    low, high = mean_interval(image_mce(wrong), total)
    return max(0.0, low), high


def flags(n: int = 40, seed: int = 0, *, clean: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    found = {name: rng.random(n) < 0.1 * (2 + int(name[-1])) for name in VARIANTS}
    return {**({"clean": rng.random(n) < 0.2} if clean else {}), **found}


def derived(records: list[Record], folder: Path | None = None) -> dict[str, dict[str, Any]]:
    folders = {record.key: folder for record in records} if folder else {}
    rows = flat_records(with_corruption_summaries(records_frame(records), folders))
    assert rows[: len(records)] == [{**row, INTERVAL: None} for row in flat_records(records_frame(records))]
    return {f"{row['metric']} {row['variant']}".strip(): row for row in rows[len(records) :]}


def test_names_of_corrupted_sets() -> None:
    names = ("imagenet-c", "imagenet-1k-c-generated", "photos-c-generated", "cifar10-c")
    assert [base_of(name) for name in names] == ["imagenet-1k", "imagenet-1k", "photos", "cifar10"]
    assert [is_generated(name) for name in names] == [False, True, True, False]


def test_values_and_intervals(write_job: Write, tmp_path: Path) -> None:
    wrong = flags()
    found = derived(write_job(tmp_path, wrong, parts=3, **JOB), tmp_path)
    assert set(found) == {"mce", "relative_mce", "top1 mean"}
    errors = by_corruption({name: float(wrong[name].mean()) for name in VARIANTS})
    row = found["mce"]
    assert row["value"] == pytest.approx(mce(errors))
    assert (row["n"], row["evaluator"], row["benchmark"]) == (40, "corruptions", "photos-c-generated")
    assert row[INTERVAL] == pytest.approx(mce_interval({name: wrong[name] for name in VARIANTS}))
    assert found["relative_mce"]["value"] == pytest.approx(relative_mce(errors, float(wrong["clean"].mean())))
    low, high = found["relative_mce"][INTERVAL]
    assert low < found["relative_mce"]["value"] < high
    hits = 1 - np.mean([wrong[name] for name in VARIANTS], axis=0)
    assert found["top1 mean"]["value"] == pytest.approx(hits.mean())
    assert found["top1 mean"][INTERVAL] == pytest.approx(mean_interval(hits))


def test_alexnet_is_one(make: Callable[..., Record]) -> None:
    records = [make(**JOB, variant=f"{c}-{s}", value=1 - e) for c, e in ALEXNET_ERRORS.items() for s in range(1, 6)]
    found = derived(records)
    assert found["mce"]["value"] == pytest.approx(1.0)
    assert found["mce"][INTERVAL] == (None, None)  # no outcomes, no interval; never a binomial one
    assert "relative_mce" not in found


def test_a_missing_severity_leaves_a_gap_that_names_it(write_job: Write, tmp_path: Path) -> None:
    wrong = flags()
    del wrong["frost-2"]
    found = derived(write_job(tmp_path, wrong, **JOB), tmp_path)
    for row in found.values():
        assert row["value"] is None
        assert row["warnings"] == ("1 of 75 corruptions are missing: frost-2",)


def test_clean_error_of_the_fine_tuning(make: Callable[..., Record], write_job: Write, tmp_path: Path) -> None:
    records = write_job(tmp_path, flags(clean=False), **JOB, checkpoint="child", parent="backbone", job="t")
    tuned = make(key="t", evaluator="finetune", value=0.7, checkpoint="backbone")
    other = make(key="u", name="other", evaluator="finetune", value=0.1, checkpoint="another")
    errors = by_corruption({r.measurement.variant: 1 - r.measurement.value for r in records if r.measurement})
    assert derived([*records, tuned, other])["relative_mce"]["value"] == pytest.approx(relative_mce(errors, 0.3))
    again = make(key="v", evaluator="finetune", value=0.6, checkpoint="backbone")
    for both in ([tuned, again], [again, tuned]):  # of two fine-tunings, the one whose classifier was corrupted
        assert derived([*records, *both])["relative_mce"]["value"] == pytest.approx(relative_mce(errors, 0.3))
    elsewhere = make(key="t", evaluator="finetune", value=0.2, benchmark="imagenet-1k", checkpoint="backbone")
    assert "relative_mce" not in derived([*records, again, elsewhere])


def test_no_clean_error_of_a_classifier_tuned_elsewhere(
    make: Callable[..., Record], write_job: Write, tmp_path: Path
) -> None:
    records = write_job(tmp_path, flags(clean=False), **JOB, checkpoint="foreign")
    found = derived([*records, make(key="t", evaluator="finetune", value=0.7, checkpoint="backbone")])
    assert set(found) == {"mce", "top1 mean"}


def test_a_part_of_a_known_whole(make: Callable[..., Record], write_job: Write, tmp_path: Path) -> None:
    wrong = flags()
    records = write_job(tmp_path, wrong, parts=2, partial=True, **JOB)  # half of the outcomes are later parts
    subset = {name: found[:20] for name, found in wrong.items()}
    records = [
        make(**JOB, key=r.key, partial=True, n=20, variant=name, value=1 - float(subset[name].mean()))
        for r in records
        if r.measurement and (name := r.measurement.variant)
    ]
    row = derived([*records, make(key="t", evaluator="finetune", n=80)], tmp_path)["mce"]
    assert row["partial"]
    assert row[INTERVAL] == pytest.approx(mce_interval({name: subset[name] for name in VARIANTS}, total=80))
    assert "the interval is for all 80 images" in row["warnings"]
    unknown = derived(records, tmp_path)["mce"]
    assert unknown[INTERVAL] == pytest.approx(mce_interval({name: subset[name] for name in VARIANTS}))


def test_outcomes_of_something_else_give_no_interval(write_job: Write, tmp_path: Path) -> None:
    write_job(tmp_path / "a", flags(seed=1), **JOB)
    records = write_job(tmp_path / "b", flags(seed=2), **JOB)
    row = derived(records, tmp_path / "a")["mce"]
    assert row["value"] is not None
    assert row[INTERVAL] == (None, None)
    assert row["warnings"] == ("no interval: the outcomes kept for this job are not those behind its records",)


def test_uneven_counts_are_remarked(make: Callable[..., Record]) -> None:
    records = [make(**JOB, variant=name, n=90 if name == "fog-1" else 100) for name in VARIANTS]
    row = derived(records)["mce"]
    assert (row["n"], row["warnings"]) == (90, ("the corruptions rest on 90 to 100 images",))


def test_a_corrupt_file_is_named(write_job: Write, tmp_path: Path) -> None:
    records = write_job(tmp_path, flags(), **JOB)
    (tmp_path / "outcomes" / "images-000.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"images-000\.parquet is not a readable Parquet file"):
        derived(records, tmp_path)
