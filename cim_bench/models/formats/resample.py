"""Resample the positions of a state dict to the grid of an architecture."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from timm.layers import resize_rel_pos_bias_table
from torch import Tensor

from cim_bench.models.formats.architectures import REL_TABLE
from cim_bench.models.positions import Interpolation, interpolate_positions


def resample_positions(
    state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], how: Interpolation
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A state dict whose absolute positions and relative tables have the shapes of the architecture.

    Args:
        state: With timm's names.
        shapes: Of the architecture.
        how: Interpolation of absolute positions.

    Returns:
        The state dict, and the names of what was resampled.
    """
    changed = {
        key: _absolute(value, shapes[key][1], how) if key == "pos_embed" else _relative(value, shapes[key])
        for key, value in state.items()
        if (key == "pos_embed" or key.endswith(REL_TABLE)) and _only_grid_differs(value, shapes.get(key), key)
    }
    return {**state, **changed}, tuple(changed)


def _only_grid_differs(value: Tensor, shape: torch.Size | None, key: str) -> bool:
    grid = 1 if key == "pos_embed" else 0
    return (
        shape is not None
        and value.ndim == len(shape)
        and value.shape[grid] != shape[grid]
        and value.shape[grid + 1] == shape[grid + 1]
    )


def _absolute(positions: Tensor, tokens: int, how: Interpolation) -> Tensor:
    """(1, n, width) to (1, `tokens`, width); both have the same rows before those of a square grid."""
    prefix = positions.shape[1] - round(positions.shape[1] ** 0.5) ** 2  # 1 with a class token, 0 without
    return interpolate_positions(positions, round((tokens - prefix) ** 0.5), how, prefix=prefix)


def _relative(table: Tensor, shape: torch.Size) -> Tensor:
    """BEiT's geometric interpolation as timm has it, linear where BEiT's is cubic (timm, layers/pos_embed_rel.py)."""
    side = (round((shape[0] - 3) ** 0.5) + 1) // 2
    resized: Tensor = resize_rel_pos_bias_table(table, new_window_size=(side, side), new_bias_shape=tuple(shape))
    return resized
