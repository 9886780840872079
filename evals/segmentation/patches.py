"""A bank of labelled patches, read from kept features piece by piece, and the images that ask it for labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cim_bench.engine.features import SetFeatures
from cim_bench.evals.segmentation.neighbours import (
    Distance,
    Scaling,
    most_frequent,
    nearest,
    scaling,
    to_patches,
    to_pixels,
)

QUERIES, TOKENS = 8192, 4096  # of one product at most: 134 MB
AT_ONCE = 1024  # queries whose neighbours' labels are in memory: of 30 neighbours and 256 pixels 8 MB


@dataclass(frozen=True)
class Patches:
    """Tokens and labels of a set's patches, on disk.

    Attributes:
        tokens: (N, P, D)
        labels: (N, S, S) uint8, 255 where unlabelled.
    """

    tokens: NDArray[np.float16]
    labels: NDArray[np.uint8]

    @classmethod
    def of(cls, found: SetFeatures) -> Patches:
        """Those of kept features."""
        return cls(found.values, found.labels)

    @property
    def grid(self) -> int:
        """Patches a side."""
        return int(self.tokens.shape[1] ** 0.5)

    def chunks(self, places: Sequence[int], tokens: int) -> Iterator[Sequence[int]]:
        """Places of images, so many that they have about as many tokens."""
        images = max(1, tokens // self.tokens.shape[1])
        return (places[start : start + images] for start in range(0, len(places), images))

    def scaling(self, places: Sequence[int]) -> Scaling:
        """Mean and deviation of all patches of some images, unlabelled ones too."""
        return scaling(torch.from_numpy(self.tokens[chunk]) for chunk in self.chunks(places, TOKENS))

    def majority(self) -> Tensor:
        """(N, P) uint8: the label of most pixels of each patch, counted from 1; 0 for unlabelled."""
        return torch.cat(
            [
                most_frequent(to_patches(torch.from_numpy(self.labels[chunk]) + 1, self.grid), -1)
                for chunk in self.chunks(range(len(self.labels)), TOKENS)
            ]
        )

    def labels_of(self, numbers: Tensor) -> Tensor:
        """Labels of the pixels of patches, counted from 1, 0 for unlabelled: any shape (...) to (..., l) uint8.

        Args:
            numbers: Of patches: ``image * P + patch``.
        """
        grid, side = self.grid, self.labels.shape[-1] // self.grid
        images, patches = np.divmod(numbers.cpu().numpy(), grid * grid)
        rows, columns = np.divmod(patches, grid)
        view = self.labels.reshape(-1, grid, side, grid, side)
        found = torch.from_numpy(view[images, rows, :, columns, :])
        return found.flatten(-2) + 1


@dataclass(frozen=True)
class Bank:
    """Labelled patches of some images of a set.

    Attributes:
        patches: Of the set.
        places: Of the images.
        majority: (N, P) as of `Patches.majority`, of the whole set; patches of label 0 are left out.
        scaling: Of tokens.
        fill: Whether a pixel without label has its patch's; otherwise it votes for 0.
        device: Where products are made.
    """

    patches: Patches
    places: Sequence[int]
    majority: Tensor
    scaling: Scaling
    fill: bool
    device: torch.device

    def __len__(self) -> int:
        return int((self.majority[list(self.places)] > 0).sum())

    def tokens(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of standardised tokens (R, D), and their numbers (R,)."""
        per_image = self.majority.shape[1]
        for chunk in self.patches.chunks(self.places, TOKENS):
            kept = (self.majority[list(chunk)] > 0).flatten()
            if bool(kept.any()):
                numbers = (torch.tensor(chunk)[:, None] * per_image + torch.arange(per_image)).flatten()[kept]
                tokens = torch.from_numpy(self.patches.tokens[chunk]).flatten(0, 1)[kept]
                yield self.scaling.apply(tokens, self.device), numbers.to(self.device)

    def predict(
        self, queries: Patches, places: Sequence[int], ks: Sequence[int], distances: Sequence[Distance]
    ) -> Iterator[tuple[int, Mapping[tuple[int, Distance], Tensor]]]:
        """Labels of the pixels of images.

        Args:
            queries: Of the images' set.
            places: Of the images.
            ks: Neighbour counts.
            distances: What nearest means.

        Yields:
            The place of an image, and by k and distance (S, S) uint8: labels from 1, 0 for unlabelled.

        Raises:
            ValueError: If a k exceeds the bank.
        """
        if max(ks) > len(self):
            raise ValueError(f"k={max(ks)} neighbours of a bank of {len(self)} labelled patches; choose a smaller k")
        for chunk in queries.chunks(places, QUERIES):
            tokens = self.scaling.apply(torch.from_numpy(queries.tokens[chunk]).flatten(0, 1), self.device)
            found = nearest(tokens, self.tokens(), most=max(ks), distances=distances)
            voted = {distance: self._vote(numbers, ks) for distance, numbers in found.items()}
            for place, image in enumerate(chunk):
                own = slice(place * queries.grid**2, (place + 1) * queries.grid**2)
                yield (
                    image,
                    {
                        (k, distance): to_pixels(labels[own], queries.grid)[0]
                        for distance, answers in voted.items()
                        for k, labels in answers.items()
                    },
                )

    def _vote(self, numbers: Tensor, ks: Sequence[int]) -> dict[int, Tensor]:
        """(Q, most) numbers of patches to (Q, l) labels by k; a piece at a time, as labels of neighbours are many."""
        parts: dict[int, list[Tensor]] = {k: [] for k in ks}
        for piece in torch.split(numbers, AT_ONCE):
            labels = self._labels(piece)
            for k in ks:
                parts[k].append(most_frequent(labels[:, :k], 1))
        return {k: torch.cat(part) for k, part in parts.items()}

    def _labels(self, numbers: Tensor) -> Tensor:
        labels = self.patches.labels_of(numbers)
        if not self.fill:
            return labels
        return torch.where(labels == 0, self.majority.flatten()[numbers.cpu()][..., None], labels)
