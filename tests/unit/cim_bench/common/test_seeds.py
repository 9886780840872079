"""Seeding without a generator's state: the numbers that Python, NumPy and torch then draw."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from cim_bench.common import seeds
from cim_bench.common.hashing import stable_hash
from cim_bench.common.seeds import seed_all


def drawn() -> tuple[float, float, list[float]]:
    return random.random(), float(np.random.rand()), torch.rand(3).tolist()  # noqa: NPY002


@pytest.mark.parametrize("accelerator", [True, False])
def test_draws_are_those_of_the_libraries_own_seeds(accelerator: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether there is a device to seed as well or not."""
    seed = int(stable_hash((0, "crop", 7))[:8], 16)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    expected = drawn()
    monkeypatch.setattr(seeds, "_has_accelerator", lambda: accelerator)
    seed_all(0, "crop", 7)
    assert drawn() == expected
    seed_all(0, "crop", 8)
    assert drawn() != expected
