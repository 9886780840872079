"""Training samples of a segmentation set whose random draws depend on (seed, draw, index) alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cim_bench.common.seeds import seed_all
from cim_bench.data.segmentation import SegmentationSet


class SegmentationSamples(Dataset[dict[str, Any]]):
    """A segmentation set under a random transform; what `cim_bench.engine.fit.fit` reads.

    Args:
        images: Source.
        transform: Image and mask to a dict of tensors, as `SegmentationTrain`.
        seed: Of the run.
    """

    def __init__(
        self, images: SegmentationSet, transform: Callable[[Image.Image, Tensor], dict[str, Tensor]], seed: int
    ) -> None:
        self.images, self.transform, self.seed = images, transform, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        draw, index = where
        image, mask = self.images.read(index)
        seed_all(self.seed, draw, index)
        return {**self.transform(image, mask), "index": index}

    def image_id(self, index: int) -> str:
        """The image's name."""
        return self.images.image_id(index)
