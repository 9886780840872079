"""Fixed 2-D sin-cos positions, and positions brought to another grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import resize_rel_pos_bias_table
from torch import Tensor

Interpolation = Literal["size", "offset", "antialias"]
REL_TABLE = "relative_position_bias_table"


def sincos_positions(dim: int, grid: int) -> Tensor:
    """Fixed sin-cos positions of a square grid, with a row of zeros for the class token.

    Half of the channels encode the column, half the row, each as sines then cosines of frequencies
    10000^(-i / (dim/4)) (facebookresearch/mae, util/pos_embed.py).

    Args:
        dim: Channels; a multiple of 4.
        grid: Patches a side.

    Returns:
        (1, 1 + grid², dim), row-major.

    Raises:
        ValueError: If `dim` is not a multiple of 4.

    Examples:
        >>> sincos_positions(4, 1).tolist()  # the class token, and the only patch: sin 0, cos 0 of column and row
        [[[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]]]
    """
    if dim % 4:
        raise ValueError(f"sin-cos positions need a multiple of 4 channels, not {dim}")
    omega = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angles = [place.reshape(-1, 1) * omega for place in (columns, rows)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, dim, dtype=torch.float64), table]).float().unsqueeze(0)


def interpolate_positions(positions: Tensor, grid: int, how: Interpolation, *, prefix: int = 1) -> Tensor:
    """Bicubic interpolation of absolute positions to another square grid, as a method's public code has it.

    Args:
        positions: (1, prefix + g², dim).
        grid: New patches a side.
        how: ``size`` to the new size (mae, util/pos_embed.py; the same in CIM's fine-tuning and BEiT), ``offset`` by
            the scale factor (grid + 0.1) / g (dino and dinov2, vision_transformer.py; CIM's pre-training,
            models/cim.py, ``interpolate_pos_encoding``), ``antialias`` to the new size with antialiasing (dinov2's
            register models, hub/backbones.py; timm, layers/pos_embed.py).
        prefix: Rows of tokens without a place in the grid, such as the class token; they are kept.

    Returns:
        (1, prefix + grid², dim); `positions` itself if the grid is the same.
    """
    old = round((positions.shape[1] - prefix) ** 0.5)
    if old == grid:
        return positions
    table = positions[:, prefix:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    if how == "offset":
        table = F.interpolate(table, scale_factor=(grid + 0.1) / old, mode="bicubic")
    else:
        table = F.interpolate(table, size=(grid, grid), mode="bicubic", antialias=how == "antialias")
    assert table.shape[-1] == grid
    return torch.cat([positions[:, :prefix], table.flatten(2).transpose(1, 2)], dim=1)


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
