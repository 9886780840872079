"""Nearest patches: by hand, and whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cim_bench.evals.segmentation import patches as patches_module
from cim_bench.evals.segmentation.neighbours import (
    most_frequent,
    nearest,
    scaling,
    to_patches,
    to_pixels,
)
from cim_bench.evals.segmentation.patches import Bank, Patches

CPU = torch.device("cpu")


def in_chunks(tokens: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(tokens.split(size), torch.arange(len(tokens)).split(size), strict=True))


def test_pixels_of_patches() -> None:
    labels = torch.arange(16, dtype=torch.uint8).view(1, 4, 4)
    found = to_patches(labels, 2)
    assert found.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]
    assert to_pixels(found, 2).equal(labels)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
def test_patches_and_back(images: int, grid: int, side: int) -> None:
    labels = torch.randint(0, 255, (images, grid * side, grid * side), dtype=torch.uint8)
    assert to_pixels(to_patches(labels, grid), grid).equal(labels)
    assert to_pixels(to_patches(labels, grid).flatten(0, 1), grid).equal(labels)


def test_of_labels_as_frequent_the_smallest_wins() -> None:
    labels = torch.tensor([[7, 2, 7, 2], [9, 0, 3, 9], [5, 4, 3, 2]], dtype=torch.uint8)
    assert most_frequent(labels, 1).tolist() == [2, 9, 2]


@given(st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=8))
def test_the_most_frequent_is_that_of_counting(rows: list[list[int]]) -> None:
    expected = [int(np.bincount(row, minlength=5).argmax()) for row in rows]  # the first of several
    assert most_frequent(torch.tensor(rows, dtype=torch.uint8), 1).tolist() == expected


def test_a_constant_channel_is_only_centred() -> None:
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 2.0]], [[5.0, 2.0], [7.0, 2.0]]])
    found = scaling([tokens[:1], tokens[1:]])
    assert found.mean.tolist() == [4.0, 2.0]
    assert found.std.tolist() == pytest.approx([5**0.5, 1.0])  # (9 + 1 + 1 + 9) / 4
    assert found.apply(tokens[0, :1], CPU).tolist() == [pytest.approx([-3 / 5**0.5, 0.0])]


@given(st.integers(1, 9), st.integers(0, 99))
def test_scaling_is_that_of_scikit_learn_whatever_the_chunks(size: int, seed: int) -> None:
    tokens = torch.randn(13, 4, 5, generator=torch.Generator().manual_seed(seed)) * 3 + 100
    own, theirs = scaling(tokens.split(size)), StandardScaler().fit(tokens.flatten(0, 1).double().numpy())
    assert own.mean.numpy() == pytest.approx(theirs.mean_, rel=1e-6)
    assert own.std.numpy() == pytest.approx(theirs.scale_, rel=1e-5)


def test_the_two_distances_by_hand() -> None:
    """Of (1, 0), (10, 10), (2, -1): cosines with (2, 2) are 0.71, 1, 0.32, distances 2.24, 11.3, 3."""
    bank = torch.tensor([[1.0, 0.0], [10.0, 10.0], [2.0, -1.0]])
    found = nearest(torch.tensor([[2.0, 2.0]]), iter(in_chunks(bank, 2)), most=3, distances=("cosine", "L2"))
    assert found["cosine"].tolist() == [[1, 0, 2]]
    assert found["L2"].tolist() == [[0, 2, 1]]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 999))
def test_neighbours_do_not_depend_on_the_chunks_and_are_those_of_torch(size: int, most: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    bank, queries = torch.randn(40, 6, generator=draw), torch.randn(5, 6, generator=draw)
    found = nearest(queries, iter(in_chunks(bank, size)), most=most, distances=("cosine", "L2"))
    assert found["L2"].equal(torch.cdist(queries, bank).topk(most, largest=False).indices)
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], bank[None], dim=-1)
    assert found["cosine"].equal(cosine.topk(most).indices)


def two_images() -> Patches:
    """Tokens 1, 2, 3, ... of one channel; each image has 2x2 patches of 2x2 pixels."""
    tokens = np.arange(1, 9, dtype=np.float16).reshape(2, 4, 1)
    labels = np.full((2, 4, 4), 255, np.uint8)
    labels[0, :2, :2] = 0  # patch 0: class 0
    labels[0, :2, 2:] = [[1, 1], [1, 255]]  # patch 1: class 1, a pixel without label; patches 2 and 3 have none
    labels[1, :2, :2] = 1  # patch 4
    return Patches(tokens, labels)


def bank(patches: Patches, *, fill: bool = False) -> Bank:
    unit = scaling([torch.tensor([[-1.0], [1.0]])])
    return Bank(patches, range(2), patches.majority(), unit, fill, CPU)


def test_votes_by_hand() -> None:
    """Of token 2.2 the nearest of 1, 2, 5 are 2, 1, 5; their last pixels have no label (0), label 1 and label 2."""
    patches = two_images()
    assert patches.majority().tolist() == [[1, 2, 0, 0], [2, 0, 0, 0]]
    assert len(bank(patches)) == 3
    queries = Patches(np.full((1, 4, 1), 2.2, np.float16), np.zeros((1, 4, 4), np.uint8))
    ((place, found),) = bank(patches).predict(queries, [0], (1, 3), ("L2",))
    assert place == 0
    assert found[1, "L2"][:2, :2].tolist() == [[2, 2], [2, 0]]
    assert found[3, "L2"][:2, :2].tolist() == [[2, 2], [2, 0]]  # of 0, 1 and 2 once each, the smallest
    assert found[3, "L2"][2:, 2:].equal(found[3, "L2"][:2, :2])
    ((_, filled),) = bank(patches, fill=True).predict(queries, [0], (1, 3), ("L2",))
    assert filled[1, "L2"][:2, :2].tolist() == [[2, 2], [2, 2]]
    assert filled[3, "L2"][:2, :2].tolist() == [[2, 2], [2, 2]]


def test_more_neighbours_than_the_bank_has() -> None:
    with pytest.raises(ValueError, match="k=5 neighbours of a bank of 3 labelled patches; choose a smaller k"):
        list(bank(two_images()).predict(two_images(), [0], (1, 5), ("L2",)))


class Counted(np.ndarray):
    """Notes how many elements were read at a time."""

    reads: list[int]

    def __getitem__(self, item: object) -> np.ndarray:
        found = np.asarray(super().__getitem__(item))  # type: ignore[index]
        self.reads.append(found.size)
        return found


def test_memory_does_not_grow_with_the_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a bank four times as large, no more is read at a time, and no product is larger."""
    monkeypatch.setattr(patches_module, "TOKENS", 64)
    monkeypatch.setattr(patches_module, "QUERIES", 32)
    largest = []
    for images in (16, 64):
        draw = np.random.default_rng(0)
        tokens = draw.standard_normal((images, 16, 8)).astype(np.float16).view(Counted)
        tokens.reads = []
        patches = Patches(tokens, draw.integers(0, 3, (images, 8, 8)).astype(np.uint8))
        made = Bank(patches, range(images), patches.majority(), scaling([torch.randn(9, 8)]), fill=False, device=CPU)
        queries = Patches(np.asarray(tokens[:4]), np.asarray(patches.labels[:4]))
        tokens.reads.clear()
        assert len(list(made.predict(queries, range(4), (1, 3), ("cosine", "L2")))) == 4
        assert max(tokens.reads) == 64 * 8
        largest.append(len(tokens.reads))
    assert largest[1] == 4 * largest[0]
