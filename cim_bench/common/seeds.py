"""Seeds that are functions of what they are for, so that a resumed run has no generator's state to restore."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import numpy as np
import torch

from cim_bench.common.hashing import stable_hash


def seed_all(*parts: int | str) -> None:
    """Seed Python, NumPy and torch from a tuple, e.g. (seed, epoch, index): randomness without state to save."""
    seed = int(stable_hash(parts)[:8], 16)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  timm's RandAugment and Mixup draw from the global generator
    if torch.utils.data.get_worker_info() is None and _has_accelerator():
        torch.manual_seed(seed)
    else:  # the same numbers; manual_seed costs 0.1 ms, a tenth of a sample, for devices that nothing here draws on
        torch.default_generator.manual_seed(seed)


@functools.cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


def sample_seed(seed: int, image: str) -> int:
    """A seed of 60 bits for one image, from a number and the image's id without suffix.

    Examples:
        The same image in another file format has the same seed, under another number another one.

        >>> sample_seed(0, "dog/7.png") == sample_seed(0, "dog/7.jpg")
        True
        >>> sample_seed(0, "dog/7.png") == sample_seed(1, "dog/7.png")
        False
    """
    return int(stable_hash([seed, str(Path(image).with_suffix(""))])[:15], 16)
