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
from cim_bench.reports.stats.mce import ALEXNET_ERRORS, DAMAGES, Damage, by_corruption, image_mce, mce, relative_mce
from cim_bench.reports.tables.corruption_summaries import damage_facets, with_corruption_summaries

Write = Callable[..., list[Record]]
JOB = {"evaluator": "corruptions", "benchmark": "photos-c-generated", "split": "test"}


def mce_interval(wrong: Any, total: int | None = None) -> tuple[float, float]:
    """Of the mean of the images' shares, as the rows of the report have it."""
    low, high = mean_interval(image_mce(wrong), total)
    return max(0.0, low), high


def flags(n: int = 40, seed: int = 0, *, clean: bool = True) -> dict[Any, Any]:
    rng = np.random.default_rng(seed)
    found = {damage: rng.random(n) < 0.1 * (2 + damage[1]) for damage in DAMAGES}
    return {**({"clean": rng.random(n) < 0.2} if clean else {}), **found}


def derived(records: list[Record], folder: Path | None = None) -> dict[str, dict[str, Any]]:
    folders = {record.key: folder for record in records} if folder else {}
    rows = flat_records(with_corruption_summaries(records_frame(records), folders))
    assert rows[: len(records)] == [{**row, INTERVAL: None} for row in flat_records(records_frame(records))]
    facets = {"mce": {}, "relative_mce": {}, "top1": {"mean": "corruptions"}}
    assert all(row["facets"] == facets[row["metric"]] for row in rows[len(records) :])
    return {row["metric"]: row for row in rows[len(records) :]}


def damage_of(record: Record) -> Damage:
    assert record.measurement is not None
    facets = record.measurement.facets
    return str(facets["corruption"]), int(facets["severity"])


def test_values_and_intervals(write_job: Write, tmp_path: Path) -> None:
    wrong = flags()
    found = derived(write_job(tmp_path, wrong, parts=3, **JOB), tmp_path)
    assert set(found) == {"mce", "relative_mce", "top1"}
    errors = by_corruption({damage: float(wrong[damage].mean()) for damage in DAMAGES})
    row = found["mce"]
    assert row["value"] == pytest.approx(mce(errors))
    assert (row["n"], row["evaluator"], row["benchmark"]) == (40, "corruptions", "photos-c-generated")
    assert row[INTERVAL] == pytest.approx(mce_interval({damage: wrong[damage] for damage in DAMAGES}))
    assert found["relative_mce"]["value"] == pytest.approx(relative_mce(errors, float(wrong["clean"].mean())))
    low, high = found["relative_mce"][INTERVAL]
    assert low < found["relative_mce"]["value"] < high
    hits = 1 - np.mean([wrong[damage] for damage in DAMAGES], axis=0)
    assert found["top1"]["value"] == pytest.approx(hits.mean())
    assert found["top1"][INTERVAL] == pytest.approx(mean_interval(hits))


def test_alexnet_is_one(make: Callable[..., Record]) -> None:
    records = [make(**JOB, facets=damage_facets(damage), value=1 - ALEXNET_ERRORS[damage[0]]) for damage in DAMAGES]
    found = derived(records)
    assert found["mce"]["value"] == pytest.approx(1.0)
    assert found["mce"][INTERVAL] == (None, None)  # no outcomes, no interval; never a binomial one
    assert "relative_mce" not in found


def test_a_missing_severity_leaves_a_gap_that_names_it(write_job: Write, tmp_path: Path) -> None:
    wrong = flags()
    del wrong["frost", 2]
    found = derived(write_job(tmp_path, wrong, **JOB), tmp_path)
    for row in found.values():
        assert row["value"] is None
        assert row["warnings"] == ("1 of 75 corruptions are missing: frost-2",)


def test_clean_error_of_the_fine_tuning(make: Callable[..., Record], write_job: Write, tmp_path: Path) -> None:
    records = write_job(tmp_path, flags(clean=False), **JOB, checkpoint="child", parent="backbone", job="t")
    tuned = make(key="t", evaluator="finetune", value=0.7, checkpoint="backbone")
    other = make(key="u", name="other", evaluator="finetune", value=0.1, checkpoint="another")
    errors = by_corruption({damage_of(r): 1 - r.measurement.value for r in records if r.measurement})
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
    assert set(found) == {"mce", "top1"}


def test_a_part_of_a_known_whole(make: Callable[..., Record], write_job: Write, tmp_path: Path) -> None:
    wrong = flags()
    records = write_job(tmp_path, wrong, parts=2, partial=True, **JOB)  # half of the outcomes are later parts
    subset = {name: found[:20] for name, found in wrong.items()}
    records = [
        make(**JOB, key=r.key, partial=True, n=20, facets=r.measurement.facets, value=1 - float(subset[key].mean()))
        for r, key in zip(records, subset, strict=True)
        if r.measurement
    ]
    row = derived([*records, make(key="t", evaluator="finetune", n=80)], tmp_path)["mce"]
    assert row["partial"]
    assert row[INTERVAL] == pytest.approx(mce_interval({damage: subset[damage] for damage in DAMAGES}, total=80))
    assert "the interval is for all 80 images" in row["warnings"]
    unknown = derived(records, tmp_path)["mce"]
    assert unknown[INTERVAL] == pytest.approx(mce_interval({damage: subset[damage] for damage in DAMAGES}))


def test_outcomes_of_something_else_give_no_interval(write_job: Write, tmp_path: Path) -> None:
    write_job(tmp_path / "a", flags(seed=1), **JOB)
    records = write_job(tmp_path / "b", flags(seed=2), **JOB)
    row = derived(records, tmp_path / "a")["mce"]
    assert row["value"] is not None
    assert row[INTERVAL] == (None, None)
    assert row["warnings"] == ("no interval: the outcomes kept for this job are not those behind its records",)


def test_uneven_counts_are_a_warning(make: Callable[..., Record]) -> None:
    records = [make(**JOB, facets=damage_facets(d), n=90 if d == ("fog", 1) else 100) for d in DAMAGES]
    row = derived(records)["mce"]
    assert (row["n"], row["warnings"]) == (90, ("the corruptions rest on 90 to 100 images",))


def test_a_corrupt_file_is_named(write_job: Write, tmp_path: Path) -> None:
    records = write_job(tmp_path, flags(), **JOB)
    (tmp_path / "outcomes" / "images-000.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"images-000\.parquet is damaged"):
        derived(records, tmp_path)
