"""A backbone with UPerNet's heads on its maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers import RelPosBias
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from cim_bench.evals.segmentation.heads import FCNHead, UPerHead, ViTPyramid
from cim_bench.models.backbone import Backbone

AUXILIARY_MAP = 2  # the third, of stride 16 (mmseg, configs/_base_/models/upernet_r50.py: ``in_index=2``)


class UPerNet(nn.Module):
    """Logits of every place, from images.

    Args:
        backbone: A ViT, or a ResNet, whose stages are the maps as they are.
        blocks: Of a ViT, four whose raw tokens are the maps; later blocks are removed.
        channels: Of the head.
        classes: How many.
    """

    def __init__(self, backbone: Backbone, *, blocks: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        self.backbone, self.blocks = backbone, tuple(blocks)
        is_vit = hasattr(backbone.net, "blocks")
        if is_vit:
            backbone.check_blocks(blocks)
            backbone.net.blocks = backbone.net.blocks[: max(blocks) + 1]
            widths = [int(backbone.net.embed_dim)] * len(self.blocks)
        else:
            self.blocks = (0, 1, 2, 3)
            widths = [int(info["num_chs"]) for info in backbone.net.feature_info[1:]]
        self.pyramid = ViTPyramid(widths[0]) if is_vit else nn.Identity()
        self.head = UPerHead(widths, channels, classes)
        self.auxiliary = FCNHead(widths[AUXILIARY_MAP], classes)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Maps of images (N, 3, H, W) in [0, 1], from stride 4 to 32."""
        found: list[Tensor] = self.pyramid(self.backbone.token_maps(images, self.blocks, norm=False))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes, H / 4, W / 4) of images (N, 3, H, W) in [0, 1]."""
        logits: Tensor = self.head(self.maps(images))
        return logits


class BiasedAttention(nn.Module):
    """Attention of timm's ViT with a table of relative positions of its own, which begins at 0.

    Source: implus/mae_segmentation, backbone/mae.py (``use_rel_pos_bias``), which adds it to MAE's absolute positions.

    Args:
        attention: timm's, whose weights are kept.
        grid: Patches a side.
        prefix: Tokens before those of the patches.
    """

    def __init__(self, attention: Any, grid: int, prefix: int) -> None:
        super().__init__()
        self.num_heads = int(attention.num_heads)
        self.qkv, self.q_norm, self.k_norm = attention.qkv, attention.q_norm, attention.k_norm
        self.proj = attention.proj
        self.rel_pos = RelPosBias(window_size=(grid, grid), num_heads=self.num_heads, prefix_tokens=prefix)
        nn.init.zeros_(self.rel_pos.relative_position_bias_table)

    def forward(self, tokens: Tensor, **_: object) -> Tensor:
        """(N, T, width) to (N, T, width); the masks that timm passes on are ``None`` in a ViT."""
        n, t, width = tokens.shape
        q, k, v = self.qkv(tokens).reshape(n, t, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        bias = self.rel_pos.get_bias().to(q.dtype)
        mixed = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, attn_mask=bias)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, t, width))
        return out


def add_relative_bias(backbone: Backbone) -> None:
    """Give every block of a ViT relative positions beside its absolute ones, of a grid of its input size.

    Raises:
        ValueError: If it is no ViT of timm's plain kind, or has relative positions already.
    """
    net = backbone.net
    blocks = getattr(net, "blocks", [])
    if not len(blocks) or not all(isinstance(block.attn, Attention) for block in blocks):
        raise ValueError(f"{backbone.arch.name} takes no relative positions beside its own; set relative_bias to False")
    grid = backbone.arch.image_size // int(net.patch_embed.patch_size[0])
    for block in blocks:
        block.attn = BiasedAttention(block.attn, grid, int(net.num_prefix_tokens))
