"""Maths of the evaluators: pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def accuracy(predictions: Tensor, labels: Tensor) -> tuple[float, int]:
    """Fraction of equal entries and their count: integers first, one division at the end.

    Args:
        predictions: (N,) class indices.
        labels: (N,) class indices.

    Raises:
        ValueError: For an empty set or different lengths.
    """
    if predictions.shape != labels.shape or not len(labels):
        raise ValueError(
            f"accuracy needs equally many predictions and labels, at least one; "
            f"got {tuple(predictions.shape)} and {tuple(labels.shape)}"
        )
    return int((predictions == labels).sum()) / len(labels), len(labels)


def knn_predict(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    *,
    ks: Sequence[int],
    temperature: float,
    num_classes: int,
    max_elements: int = 2**26,
) -> dict[int, Tensor]:
    """Weighted k-nearest-neighbour votes: cosine similarity s votes exp(s / T) for its label.

    Source: facebookresearch/dino, eval_knn.py. Votes are taken relative to the nearest neighbour's, which changes no
    order, and overflows at no T. Queries are taken in chunks so that no similarity matrix has
    more than `max_elements` entries.

    Args:
        bank: (N, D) training features.
        bank_labels: (N,) their labels.
        queries: (M, D) features to classify.
        ks: Neighbour counts, each from 1 to N.
        temperature: T.
        num_classes: C.
        max_elements: Bound on memory.

    Returns:
        (M,) predicted labels by k.

    Raises:
        ValueError: If a k exceeds the bank.
    """
    if max(ks) > len(bank):
        raise ValueError(f"k={max(ks)} neighbours of a bank of {len(bank)} images; choose a smaller k")
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    rows = max(1, max_elements // max(len(bank), max(ks) * num_classes))
    parts: dict[int, list[Tensor]] = {k: [] for k in ks}
    for chunk in torch.split(queries, rows):
        similarity, nearest = (chunk @ bank.T).topk(max(ks), dim=1)  # (m, K), sorted
        votes = ((similarity - similarity[:, :1]) / temperature).exp()  # of the nearest 1: none overflows
        labels = bank_labels[nearest]
        for k in ks:
            tally = votes.new_zeros(len(chunk), num_classes).scatter_add_(1, labels[:, :k], votes[:, :k])
            parts[k].append(tally.argmax(dim=1))
    return {k: torch.cat(part) for k, part in parts.items()}


def confusion_matrix(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How many pixels of each class were taken for each class.

    Pixels without a label are counted in a row of their own: to sort them out takes ten times as long as to count.

    Args:
        truth: (H, W) uint8: classes, and 255 where there is no label; any shape.
        predicted: The same shape: classes, of any whole-number type; uint8 is the fastest.
        classes: C, from 1 to 255.

    Returns:
        (C, C) int64, rows by truth.

    Raises:
        ValueError: If shapes or types do not fit, or a class is not below C.
    """
    if truth.shape != predicted.shape or truth.dtype != torch.uint8 or not 1 <= classes <= 255:
        raise ValueError(
            f"a confusion matrix of 1 to 255 classes needs a uint8 truth and a prediction of its shape; "
            f"got {classes} classes, {truth.dtype} {tuple(truth.shape)} and {tuple(predicted.shape)}"
        )
    rows = truth + 1  # 255 becomes 0, as in the files of ADE20K
    if truth.numel():
        low, high = (int(bound) for bound in predicted.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(f"predicted classes {low} to {high} are not all of 0 to {classes - 1}")
        if (last := int(rows.max()) - 1) >= classes:
            raise ValueError(f"the truth has class {last}, where there are {classes} from 0")
    narrow = torch.int16 if (classes + 1) * classes <= 2**15 else torch.int32  # memory is what takes the time
    cells = torch.add(predicted.to(narrow), rows.to(narrow), alpha=classes).flatten()
    return torch.bincount(cells, minlength=(classes + 1) * classes).view(classes + 1, classes)[1:]
