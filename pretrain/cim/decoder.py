"""Parts of CIM's decoder: its cross-attention block, and the upsampling of correlation maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn


class CorrelationBlock(nn.Module):
    """Pre-norm cross-attention and MLP; queries and keys share one LayerNorm (models/nn_util.py, CrossBlock).

    Args:
        dim: Width.
        heads: Attention heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, context: Tensor, exemplars: Tensor) -> Tensor:
        """Context tokens (B, L, D) and exemplar tokens (B, E, T, D) to (B, E, L, D)."""
        images, count, tokens, dim = exemplars.shape
        width = dim // self.heads
        q = self.q(self.norm1(context)).view(images, -1, self.heads, width).transpose(1, 2)  # (B, H, L, w)
        kv = self.kv(self.norm1(exemplars)).view(images, count, tokens, 2, self.heads, width)
        k, v = kv.permute(3, 0, 1, 4, 2, 5).flatten(1, 2).unbind(0)  # (B*E, H, T, w)
        q = q[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(images, count, -1, dim)
        x = context[:, None] + self.proj(attended)
        decoded: Tensor = x + self.mlp(self.norm2(x))
        return decoded


def upsampling_matrix(grid: int, resolution: int) -> Tensor:
    """(resolution, grid) matrix of bilinear upsampling with aligned corners: rows and columns each pass through it."""
    eye = torch.eye(grid)[None]
    return F.interpolate(eye, size=resolution, mode="linear", align_corners=True)[0].T.contiguous()
