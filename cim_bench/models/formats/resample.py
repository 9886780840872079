"""Positions of a checkpoint on another grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resize_rel_pos_bias_table
from torch import Tensor

from cim_bench.models.formats.architectures import REL_TABLE
from cim_bench.models.formats.key_map import Table


def resample_positions(
    state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], how: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A state dict whose absolute positions and relative tables have the shapes of the architecture.

    Args:
        state: With timm's names.
        shapes: Of the architecture.
        how: As `cim_bench.models.formats.key_map.Format.resample`.

    Returns:
        The state dict, and the names of what was resampled.
    """
    changed = {
        key: _positions(value, shapes[key][1], how) if key == "pos_embed" else _table(value, shapes[key])
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


def _positions(table: Tensor, tokens: int, how: str) -> Tensor:
    """(1, n, width) to (1, `tokens`, width); a class token's row, if there is one, is kept.

    ``size`` is bicubic to the new size (mae, util/pos_embed.py; the same in CIM and BEiT), ``offset`` bicubic by the
    scale factor (new + 0.1) / old (dino and dinov2, vision_transformer.py), ``antialias`` bicubic with antialiasing
    (dinov2's register models, hub/backbones.py; timm, layers/pos_embed.py).
    """
    first = table.shape[1] - round(table.shape[1] ** 0.5) ** 2  # 1 with a class token, 0 without
    old, new = round((table.shape[1] - first) ** 0.5), round((tokens - first) ** 0.5)
    options: dict[str, Any] = {"size": (new, new), "antialias": how == "antialias"}
    if how == "offset":
        options = {"scale_factor": (new + 0.1) / old}
    patches = table[:, first:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, mode="bicubic", **options)
    return torch.cat([table[:, :first], patches.flatten(2).transpose(1, 2)], dim=1)


def _table(table: Tensor, shape: torch.Size) -> Tensor:
    """BEiT's geometric interpolation as timm has it, linear where BEiT's is cubic (timm, layers/pos_embed_rel.py)."""
    side = (round((shape[0] - 3) ** 0.5) + 1) // 2
    resized: Tensor = resize_rel_pos_bias_table(table, new_window_size=(side, side), new_bias_shape=tuple(shape))
    return resized


def table_of(positions: Tensor) -> Table:
    """Whose fixed sin-cos table (1, 1 + grid², width) is: ``mae``'s and CIM's, ``moco3``'s, or ``none``."""
    if positions.ndim != 3 or positions.shape[2] % 4 or positions.shape[2] == 0:
        return "none"
    side = math.isqrt(max(positions.shape[1] - 1, 0))
    if side == 0 or side**2 + 1 != positions.shape[1]:
        return "none"
    # half precision rounds values of up to 1 by 4e-3 in bfloat16; learned positions differ by far more
    tolerance = 1e-3 if positions.dtype in (torch.float32, torch.float64) else 5e-3
    table, found = sincos(positions.shape[2], side), positions.float()
    if float((found - table).abs().max()) < tolerance:
        return "mae"
    swapped = table.roll(positions.shape[2] // 2, dims=2)
    return "moco3" if float((found - swapped).abs().max()) < tolerance else "none"


def sincos(dim: int, side: int) -> Tensor:
    """The fixed table of MAE and CIM, (1, 1 + side², dim), zero for the class token (mae, util/pos_embed.py).

    MoCo v3's has the halves of rows and columns the other way round (moco-v3, vits.py). It stands here and in
    `cim_bench.models.positions`, because the core knows no pretext.
    """
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    line = torch.arange(side, dtype=torch.float64)
    rows, columns = line.repeat_interleave(side), line.repeat(side)
    waves = [wave(place[:, None] * omega) for place in (columns, rows) for wave in (torch.sin, torch.cos)]
    return F.pad(torch.cat(waves, dim=1), (0, 0, 1, 0)).float()[None]
