"""Training samples whose random draws depend on (seed, draw, index) alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from PIL import Image
from torch.utils.data import Dataset

from cim_bench.common.seeds import seed_all
from cim_bench.data.images import ImageSet


class TrainSet(Protocol):
    """Training samples that `cim_bench.engine.fit.fit` reads: by (draw, index), with a name for each image."""

    def __len__(self) -> int: ...
    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]: ...
    def image_id(self, index: int) -> str:
        """Name of a sample for error messages."""
        ...


class Augmented(Dataset[dict[str, Any]]):
    """An image set under a random transform whose draws depend on (seed, draw, index) alone.

    Args:
        images: Source.
        transform: Image to a tensor or a dict of tensors.
        seed: Of the run.
    """

    def __init__(self, images: ImageSet, transform: Callable[[Image.Image], Any], seed: int) -> None:
        self.images, self.transform, self.seed = images, transform, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        draw, index = where
        image, label = self.images.read(index)
        seed_all(self.seed, draw, index)
        made = self.transform(image)
        sample = made if isinstance(made, dict) else {"image": made}
        return {**sample, "label": label, "index": index}

    def image_id(self, index: int) -> str:
        """The image's name."""
        return self.images.image_id(index)
