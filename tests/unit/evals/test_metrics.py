"""Metric maths by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from cim_bench.evals.metrics import accuracy, confusion_matrix, knn_predict


def test_accuracy_by_hand() -> None:
    assert accuracy(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])) == (3 / 4, 4)


def test_accuracy_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        accuracy(torch.tensor([]), torch.tensor([]))


def test_votes_by_hand() -> None:
    """One near neighbour of class 0 (cosine 1) against two of class 1 (cosine 0.8), T = 1.

    k = 1: class 0. k = 3: e^1 = 2.718 for class 0, 2 e^0.8 = 4.451 for class 1.
    With T = 0.1: e^10 = 22026 against 2 e^8 = 5962: class 0.
    """
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6], [-1.0, 0.0]])
    labels, query = torch.tensor([0, 1, 1, 2]), torch.tensor([[2.0, 0.0]])
    warm = knn_predict(bank, labels, query, ks=(1, 3), temperature=1.0, num_classes=3)
    assert (warm[1].item(), warm[3].item()) == (0, 1)
    assert 2 * math.exp(0.8) > math.e
    assert knn_predict(bank, labels, query, ks=(3,), temperature=0.1, num_classes=3)[3].item() == 0


def predict_by_hand(bank: np.ndarray, labels: np.ndarray, query: np.ndarray, k: int, temperature: float) -> int:
    """One query's class in float64, one vote at a time."""
    bank, query = bank / np.linalg.norm(bank, axis=1, keepdims=True), query / np.linalg.norm(query)
    similarity = bank @ query
    nearest = np.argsort(-similarity)[:k]
    tally = np.zeros(labels.max() + 1)
    for place in nearest:
        tally[labels[place]] += math.exp((similarity[place] - similarity[nearest[0]]) / temperature)
    return int(tally.argmax())


@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.07, 0.02, 0.01, 0.003])
def test_votes_agree_with_float64_at_every_temperature(temperature: float) -> None:
    """Below T = 0.0113, exp(1 / T) is beyond fp32: all near neighbours would vote alike, and the first class win."""
    draw = np.random.default_rng(0)
    labels, asked = draw.integers(0, 4, 400), draw.integers(0, 4, 60)
    centres = 2 * draw.standard_normal((4, 8))
    bank = centres[labels] + 1.5 * draw.standard_normal((400, 8))
    queries = centres[asked] + 1.5 * draw.standard_normal((60, 8))
    tensors = [torch.from_numpy(bank).float(), torch.from_numpy(labels), torch.from_numpy(queries).float()]
    found = knn_predict(*tensors, ks=(1, 20), temperature=temperature, num_classes=4)
    for k in (1, 20):
        assert found[k].tolist() == [predict_by_hand(bank, labels, query, k, temperature) for query in queries]
    assert (found[20].numpy() == asked).mean() > 0.6


@given(seed=st.integers(0, 1000), k=st.sampled_from([1, 3, 10]))
@settings(max_examples=20, deadline=None)
def test_votes_agree_with_scikit_learn(seed: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    bank, queries = torch.randn(60, 5, generator=generator), torch.randn(17, 5, generator=generator)
    labels = torch.randint(0, 4, (60,), generator=generator)
    ours = knn_predict(bank, labels, queries, ks=(k,), temperature=0.07, num_classes=4)[k]
    reference = KNeighborsClassifier(
        n_neighbors=k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
    )
    assert (ours.numpy() == reference.fit(bank.numpy(), labels.numpy()).predict(queries.numpy())).all()


def test_chunks_do_not_change_votes() -> None:
    bank, queries = torch.randn(50, 8), torch.randn(33, 8)
    labels = torch.randint(0, 5, (50,))
    whole = knn_predict(bank, labels, queries, ks=(10,), temperature=0.07, num_classes=5)[10]
    assert whole.equal(
        knn_predict(bank, labels, queries, ks=(10,), temperature=0.07, num_classes=5, max_elements=120)[10]
    )


def test_too_large_k_is_refused() -> None:
    with pytest.raises(ValueError, match="bank of 3 images"):
        knn_predict(
            torch.ones(3, 2), torch.zeros(3, dtype=torch.long), torch.ones(1, 2), ks=(4,), temperature=1, num_classes=1
        )


def test_confusion_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1], [1, 255, 255]], dtype=torch.uint8)
    predicted = torch.tensor([[0, 1, 1], [1, 0, 2]], dtype=torch.uint8)
    found = confusion_matrix(truth, predicted, 3)
    assert found.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert found.dtype == torch.int64


@given(st.data(), st.integers(1, 255), st.sampled_from([torch.uint8, torch.int16, torch.int64]))
def test_confusion_against_a_double_loop(data: st.DataObject, classes: int, dtype: torch.dtype) -> None:
    labels = st.integers(0, classes - 1)
    pixels = data.draw(st.lists(st.tuples(labels | st.just(255), labels), max_size=40))
    expected = torch.zeros(classes, classes, dtype=torch.int64)
    for true, guess in pixels:
        if true != 255:
            expected[true, guess] += 1
    truth, predicted = (torch.tensor([pixel[i] for pixel in pixels]) for i in (0, 1))
    assert confusion_matrix(truth.to(torch.uint8), predicted.to(dtype), classes).equal(expected)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([0, 3], [0, 0], "the truth has class 3, where there are 3 from 0"),
        ([0, 254], [0, 0], "the truth has class 254"),
        ([0, 1], [0, 3], "predicted classes 0 to 3 are not all of 0 to 2"),
        ([0, 1], [0, 256], "predicted classes 0 to 256"),
        ([0, 1], [-1, 0], "predicted classes -1 to 0"),
        ([0, 1], [0], r"got 3 classes, torch.uint8 \(2,\) and \(1,\)"),
    ],
)
def test_classes_out_of_range_are_refused(truth: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(torch.tensor(truth, dtype=torch.uint8), torch.tensor(predicted), 3)
