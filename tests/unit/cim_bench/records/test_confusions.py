"""Confusion matrices of images: numbers by hand and by plain loops, both meanings of a mean IoU, damage is named."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cim_bench.records.confusions import (
    Cells,
    class_sums,
    confusion_files,
    confusions_file,
    mean_accuracy,
    miou,
    miou_present,
    per_class_iou,
    pixel_accuracy,
    read_confusions,
    to_cells,
    write_confusions,
)
from cim_bench.records.record import ProtocolInfo

PROTOCOL = ProtocolInfo(evaluator="segmentation_knn", version=1)
NAMES = ("wall", "sky", "tree")
# Two images of three classes, rows by truth: of 8 and 4 labelled pixels.
ONE = np.array([[3, 1, 0], [0, 2, 2], [0, 0, 0]])
TWO = np.array([[1, 0, 1], [0, 2, 0], [0, 0, 0]])
BOTH = class_sums([to_cells(ONE), to_cells(TWO)], 3)


def test_cells_are_the_matrix_without_zeros() -> None:
    cells, counts = to_cells(ONE)
    assert (cells.tolist(), counts.tolist()) == ([0, 1, 4, 5], [3, 1, 2, 2])
    assert cells.dtype == counts.dtype == np.int64


def test_sums_by_hand() -> None:
    assert BOTH.tolist() == [[[3, 2, 0], [4, 4, 0], [3, 3, 2]], [[1, 2, 0], [2, 2, 0], [1, 2, 1]]]
    assert class_sums([], 3).shape == (0, 3, 3)


def test_numbers_by_hand() -> None:
    """Over both images: found 4, 4, 0; true 6, 6, 0; predicted 4, 5, 3; unions 6, 7, 3."""
    whole = BOTH.sum(0)
    assert per_class_iou(whole).tolist() == [4 / 6, 4 / 7, 0.0]
    assert miou(whole) == (4 / 6 + 4 / 7 + 0) / 3  # the third class was predicted
    assert miou_present(whole) == (4 / 6 + 4 / 7) / 2  # and is nowhere true
    assert mean_accuracy(whole) == (4 / 6 + 4 / 6) / 2
    assert pixel_accuracy(whole) == 8 / 12
    assert miou(BOTH).tolist() == [(3 / 4 + 2 / 5 + 0) / 3, (1 / 2 + 2 / 2 + 0) / 3]  # of each image, not the metric


def test_a_class_that_is_nowhere_counts_in_neither() -> None:
    whole = class_sums([to_cells(np.diag([2, 3, 0]))], 3).sum(0)
    assert np.isnan(per_class_iou(whole)[2])
    assert miou(whole) == miou_present(whole) == mean_accuracy(whole) == pixel_accuracy(whole) == 1.0


def test_without_pixels_nothing_is_a_number() -> None:
    empty = class_sums([to_cells(np.zeros((3, 3)))], 3).sum(0)
    assert all(np.isnan(of(empty)) for of in (miou, miou_present, mean_accuracy, pixel_accuracy))


def test_sums_are_of_64_bits() -> None:
    """ADE20K's training split has about 6e9 pixels: more than 32 bits count, and no float is between."""
    huge = Cells(np.array([0, 1]), np.array([2**53 + 1, 1]))
    sums = class_sums([huge], 2)
    assert sums.dtype == np.int64
    assert sums.tolist() == [[[2**53 + 1, 0], [2**53 + 2, 0], [2**53 + 1, 1]]]


matrices = st.integers(1, 5).flatmap(
    lambda classes: st.lists(arrays(np.int64, (classes, classes), elements=st.integers(0, 3)), min_size=1, max_size=4)
)


@given(matrices)
def test_all_numbers_against_plain_loops(found: list[np.ndarray]) -> None:
    classes = len(found[0])
    whole = class_sums([to_cells(matrix) for matrix in found], classes).sum(0)
    pixels = [
        (truth, predicted)
        for matrix in found
        for truth in range(classes)
        for predicted in range(classes)
        for _ in range(matrix[truth, predicted])
    ]
    ious, present, recalls = [], [], []
    for c in range(classes):
        both = sum(a == b == c for a, b in pixels)
        either = sum(c in pair for pair in pixels)
        true = sum(a == c for a, _ in pixels)
        ious += [Fraction(both, either)] if either else []
        present += [Fraction(both, either)] if true else []
        recalls += [Fraction(both, true)] if true else []
    if pixels:
        assert miou(whole) == pytest.approx(float(sum(ious) / len(ious)))
        assert miou_present(whole) == pytest.approx(float(sum(present) / len(present)))
        assert mean_accuracy(whole) == pytest.approx(float(sum(recalls) / len(recalls)))
        assert pixel_accuracy(whole) == float(Fraction(sum(a == b for a, b in pixels), len(pixels)))


@given(matrices)
def test_written_and_read(tmp_path_factory: pytest.TempPathFactory, found: list[np.ndarray]) -> None:
    folder, cells = tmp_path_factory.mktemp("job"), [to_cells(matrix) for matrix in found]
    names = [f"class {c}" for c in range(len(found[0]))]
    ids = [f"{i}.jpg" for i in range(len(found))]
    kept = [({"k": 3}, cells), ({"k": 10}, cells[::-1])]
    write_confusions(confusions_file(folder, "all"), ids, names, kept, PROTOCOL, "the job")
    back = read_confusions(folder, "the job")
    assert (back.ids, back.classes) == (tuple(ids), tuple(names))
    assert list(back.found) == [(("k", 3),), (("k", 10),)]
    assert (back.sums({"k": 3}) == class_sums(cells, len(names))).all()
    assert (back.sums({"k": 10}) == class_sums(cells[::-1], len(names))).all()


def write(folder: Path, part: str = "all", ids: Sequence[str] = ("a", "b"), names: Sequence[str] = NAMES) -> Path:
    file = confusions_file(folder, part)
    write_confusions(file, ids, names, [({}, [to_cells(ONE), to_cells(TWO)])], PROTOCOL, "the job")
    return file


def test_parts_count_together(tmp_path: Path) -> None:
    write(tmp_path, "0")
    write(tmp_path, "1", ids=("c", "d"))
    found = read_confusions(tmp_path)
    assert found.ids == ("a", "b", "c", "d")
    assert (found.sums({}).sum(0) == 2 * BOTH.sum(0)).all()


def test_a_file_is_small(tmp_path: Path) -> None:
    """A matrix of 150 classes alone would have 180 kB; an image has some ten classes."""
    draw = np.random.default_rng(0)
    cells = [np.unique(draw.integers(0, 150**2, 40)) for _ in range(2000)]
    found = [Cells(places, draw.integers(1, 30_000, len(places))) for places in cells]
    names = [f"class {c}" for c in range(150)]
    file = confusions_file(tmp_path, "all")
    write_confusions(file, [f"ADE_val_{i:08d}.jpg" for i in range(2000)], names, [({}, found)], PROTOCOL)
    assert file.stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([({"stride": 4}, [])], "no facet is called 'stride'"),
        ([({"k": 5}, [to_cells(ONE)]), ({"k": 5}, [to_cells(ONE)])], "both called 'k=5'; make them differ more"),
        ([({}, [])], "0 confusion matrices of 1 images"),
        ([({}, [Cells(np.array([9]), np.array([1]))])], "image 'a' has cells 9 to 9, of 3 classes 0 to 8"),
        ([({}, [Cells(np.array([1, 1]), np.array([1, 1]))])], "image 'a' needs increasing cells"),
        ([({}, [Cells(np.array([1]), np.array([0]))])], "at least one pixel in each"),
    ],
)
def test_what_is_no_matrix_is_refused(found: list, message: str, tmp_path: Path) -> None:
    file = confusions_file(tmp_path, "all")
    with pytest.raises(ValueError, match=message):
        write_confusions(file, ["a"], NAMES, found, PROTOCOL)
    assert not file.exists()


def test_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path} keeps no confusion matrices; delete it"):
        read_confusions(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", b"\0" * 100])
def test_damage_is_named(content: bytes, tmp_path: Path) -> None:
    write(tmp_path).write_bytes(content)
    with pytest.raises(ValueError, match=r"all\.parquet is damaged .*; delete .* and run again") as caught:
        read_confusions(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_tables_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path)
    pq.write_table(pa.table({"id": ["a"], "label": [0]}), file)
    with pytest.raises(ValueError, match=r"all\.parquet does not hold confusion matrices; move it away"):
        read_confusions(tmp_path)


def test_another_job_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=r"all\.parquet is not of this job; delete it"):
        read_confusions(tmp_path, "another")


def test_changes_are_found(tmp_path: Path) -> None:
    file = write(tmp_path)
    table = pq.read_table(file)
    for name, values in (("id", ["a", "c"]), ("counts of prediction", [[3, 1, 2, 3], [1, 1, 2]])):
        place = table.column_names.index(name)
        column = pa.array(values, table.schema.field(name).type)
        pq.write_table(table.set_column(place, table.schema.field(name), column), file)
        with pytest.raises(ValueError, match=r"all\.parquet was changed after it was written"):
            read_confusions(tmp_path)


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "0")
    second = write(tmp_path, "1", names=("wall", "sky", "bush"))
    with pytest.raises(ValueError, match=r"1\.parquet has other classes or facets than 0\.parquet"):
        read_confusions(tmp_path)
    second.unlink()
    write(tmp_path, "1", ids=("c", "b"))
    with pytest.raises(ValueError, match="hold image 'b' twice"):
        read_confusions(tmp_path)


def test_files_that_were_cut_off_are_no_parts(tmp_path: Path) -> None:
    file = write(tmp_path)
    (file.parent / ".all.parquet.x1").write_bytes(b"half")
    assert confusion_files(tmp_path) == [file]
