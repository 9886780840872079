"""Deterministic weights and images of the golden numbers, the same with and without the public code."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def value(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor from a key's name and shape; no two are alike, and none is as it would be initialised."""
    if not dtype.is_floating_point:
        return torch.ones(shape, dtype=dtype)
    step = 0.7 + zlib.crc32(name.encode()) % 9973 / 9973
    wave = torch.sin((torch.arange(math.prod(shape), dtype=torch.float64) + 1) * step).reshape(shape)
    if name.endswith("running_var"):
        return (1 + 0.5 * wave).float()
    if len(shape) >= 2 and name.endswith("weight"):
        return (wave * math.sqrt(2 / math.prod(shape[1:]))).float()
    is_scale = name.rpartition(".")[2] in ("weight", "gamma", "gamma_1", "gamma_2")
    return (1 + 0.1 * wave).float() if is_scale else (0.1 * wave).float()


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Values from a parameter's name and shape alone, by NumPy's frozen generator, scaled to keep activations small."""
    draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        return torch.from_numpy(draw / math.sqrt(math.prod(shape[1:]))).float()
    return torch.from_numpy(0.1 * draw + ("norm" in name and name.endswith("weight"))).float()


def images(size: int, count: int = 2) -> Tensor:
    """Smooth images in [0, 1], (count, 3, size, size)."""
    line = torch.arange(size, dtype=torch.float64) / size
    rows, columns = line[:, None], line[None, :]
    waves = [
        torch.sin(2 * math.pi * ((1 + i + c) * rows + (2 + c * i) * columns) + c)
        for i in range(count)
        for c in range(3)
    ]
    return (0.5 + 0.4 * torch.stack(waves)).reshape(count, 3, size, size).float()


def thin(output: Tensor) -> Tensor:
    """At most 64 numbers of each image."""
    return output[:, :: math.ceil(output.shape[1] / 64)]


def layout(packed: Any) -> Any:
    """A file without its values: ``float32 48 3 8 8`` in place of a tensor."""
    if isinstance(packed, Tensor):
        return " ".join([str(packed.dtype).removeprefix("torch."), *map(str, packed.shape)])
    if isinstance(packed, Mapping):
        return {key: layout(item) for key, item in packed.items()}
    return packed


def filled(tree: Any, wrap: str) -> Any:
    """A file from its layout.

    Args:
        tree: From `layout`.
        wrap: What stands before the names that the values were made from, e.g. ``module.``.
    """
    if not isinstance(tree, Mapping):
        return tree
    made = {}
    for key, item in tree.items():
        if isinstance(item, str) and item.startswith(("float", "int")):
            dtype, *shape = item.split()
            made[key] = value(key.removeprefix(wrap), tuple(map(int, shape)), getattr(torch, dtype))
        else:
            made[key] = filled(item, wrap)
    return made
