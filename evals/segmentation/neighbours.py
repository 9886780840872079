"""Maths of nearest neighbours among patches: pure functions of tensors, in chunks that bound the memory.

Source of the method: facebookresearch/capi (98b4fa1), eval_segmentation.py. A patch carries the labels of all its
pixels, and a query takes, pixel by pixel of the patch, the label that most of its neighbours have in that place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Distance = Literal["cosine", "L2"]


class Scaling(NamedTuple):
    """Mean and standard deviation of each channel, float32 (D,)."""

    mean: Tensor
    std: Tensor

    def apply(self, tokens: Tensor, device: torch.device) -> Tensor:
        """(..., D) of any type to standardised float32 on a device."""
        return (tokens.to(device).float() - self.mean.to(device)) / self.std.to(device)


def scaling(chunks: Iterable[Tensor]) -> Scaling:
    """Mean and standard deviation of each channel over all tokens; a channel that is constant is only centred.

    Source: scikit-learn's ``StandardScaler``, which divides by N and takes 1 in place of a deviation of 0.

    Args:
        chunks: (..., D) each; sums are taken in float64.
    """
    count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for chunk in chunks:
        values = chunk.double().flatten(0, -2)
        count, total, squares = count + len(values), total + values.sum(0), squares + values.square().sum(0)
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0)
    constant = variance <= 10 * torch.finfo(torch.float64).eps * (mean.square() + 1)
    return Scaling(mean.float(), torch.where(constant, 1.0, variance.sqrt()).float())


def to_patches(labels: Tensor, grid: int) -> Tensor:
    """Labels of pixels by patch: (n, S, S) to (n, grid², (S / grid)²), rows of patches and of pixels in order."""
    n, side = len(labels), labels.shape[-1] // grid
    return labels.reshape(n, grid, side, grid, side).transpose(2, 3).reshape(n, grid * grid, side * side)


def to_pixels(patches: Tensor, grid: int) -> Tensor:
    """The reverse of `to_patches`: (n, grid², l), or (n grid², l), to (n, S, S)."""
    n, side = patches[..., 0].numel() // grid**2, int(patches.shape[-1] ** 0.5)
    return patches.reshape(n, grid, grid, side, side).transpose(2, 3).reshape(n, grid * side, grid * side)


def most_frequent(labels: Tensor, dim: int) -> Tensor:
    """The label that occurs most often along a dimension, on the CPU; of several the smallest, as torch's ``mode``."""
    return labels.cpu().mode(dim=dim).values


def nearest(
    queries: Tensor, bank: Iterator[tuple[Tensor, Tensor]], *, most: int, distances: Sequence[Distance]
) -> Mapping[Distance, Tensor]:
    """The nearest tokens of a bank, from one product for all distances.

    Cosine and L2 rank as b·q / |b| and b·q - |b|² / 2 do, the longest first.

    Args:
        queries: (Q, D) float32.
        bank: Chunks: (R, D) float32 on the same device, and (R,) numbers of its tokens.
        most: How many neighbours; all of a smaller bank.
        distances: Which.

    Returns:
        By distance (Q, most) numbers of tokens, the nearest first.
    """
    best: dict[Distance, tuple[Tensor, Tensor]] = {}
    for tokens, numbers in bank:
        products = queries @ tokens.T
        for distance in distances:
            if distance == "cosine":
                closeness = products / tokens.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
            else:
                closeness = products - tokens.square().sum(dim=1) / 2
            found, places = closeness.topk(min(most, len(tokens)), dim=1)
            chosen = numbers[places]
            if distance in best:
                found, chosen = torch.cat([best[distance][0], found], 1), torch.cat([best[distance][1], chosen], 1)
                found, places = found.topk(min(most, found.shape[1]), dim=1)
                chosen = chosen.gather(1, places)
            best[distance] = found, chosen
    return {distance: chosen for distance, (_, chosen) in best.items()}
