"""Fixed 2-D sin-cos positions, and their interpolation to another grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_positions(dim: int, grid: int) -> Tensor:
    """Positions of a square grid with a zero row for the class token.

    Half of the channels encode the column, half the row, each as sines then cosines of frequencies
    10000^(-i / (dim/4)) (facebookresearch/mae, util/pos_embed.py).

    Args:
        dim: Channels; a multiple of 4.
        grid: Patches a side.

    Returns:
        (1, 1 + grid², dim), row-major.

    Raises:
        ValueError: If `dim` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"sin-cos positions need a multiple of 4 channels, not {dim}")
    omega = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angles = [place.reshape(-1, 1) * omega for place in (columns, rows)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, dim, dtype=torch.float64), table]).float().unsqueeze(0)


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """Bicubic interpolation to another grid; the class token's row is kept.

    The scale is (grid + 0.1) / old grid, as in DINO's and CIM's public code (models/cim.py,
    ``interpolate_pos_encoding``), so that features agree with theirs.

    Args:
        positions: (1, 1 + g², dim).
        grid: New patches a side.

    Returns:
        (1, 1 + grid², dim).
    """
    old = round((positions.shape[1] - 1) ** 0.5)
    if old == grid:
        return positions
    table = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    table = F.interpolate(table, scale_factor=(grid + 0.1) / old, mode="bicubic")
    assert table.shape[-1] == grid
    return torch.cat([positions[:, :1], table.flatten(2).transpose(1, 2)], dim=1)
