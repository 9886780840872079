"""What the pretexts of plain ViTs share: the encoder, its initialisation, and grids of patches."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cim_bench.backbone import create_net
from cim_bench.pretrain.positions import resample_positions, sincos_positions
from cim_bench.recipe import Arch


def plain_vit(arch: Arch, method: str) -> Any:
    """A timm ViT with class token, absolute positions and no head.

    Raises:
        ValueError: If the architecture is something else.
    """
    net = create_net(arch, num_classes=0)
    parts = ("cls_token", "pos_embed", "blocks", "norm")
    if any(getattr(net, part, None) is None for part in parts) or getattr(net, "num_prefix_tokens", 0) != 1:
        raise ValueError(
            f"{method} pre-trains plain ViTs with a class token and absolute positions; {arch.name} is not one"
        )
    return net


def init_weights(module: nn.Module) -> None:
    """Xavier-uniform linears with zero biases, unit norms, as MAE and CIM start (mae, models_mae.py)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def patch_grid(size: int, arch: Arch, net: Any) -> int:
    """Patches a side of an image of `size` pixels.

    Raises:
        ValueError: If `size` does not divide by the patch.
    """
    patch = int(net.patch_embed.patch_size[0])
    if size % patch:
        raise ValueError(
            f"size {size} does not divide by the patch of {patch} pixels of {arch.name}; choose a multiple"
        )
    return size // patch


class ViTTokens:
    """How CIM runs a plain ViT: on inputs of several sizes, whose fixed positions are resampled (models/cim.py).

    Args:
        arch: A timm ViT with class token.
        method: Who asks, for the message.

    Raises:
        ValueError: If the architecture is something else.
    """

    prefix = 1

    def __init__(self, arch: Arch, method: str) -> None:
        self.arch = arch
        self.net = plain_vit(arch, method)
        self.dim = int(self.net.embed_dim)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier linears, N(0, 0.02) class token, fixed sin-cos positions, frozen random patch projection."""
        self.net.apply(init_weights)
        nn.init.normal_(self.net.cls_token, std=0.02)
        self.net.pos_embed.data.copy_(sincos_positions(self.dim, self.net.patch_embed.grid_size[0]))
        self.net.pos_embed.requires_grad_(False)
        proj = self.net.patch_embed.proj
        bound = math.sqrt(6 / (3 * proj.kernel_size[0] * proj.kernel_size[1] + proj.out_channels))
        nn.init.uniform_(proj.weight, -bound, bound)
        nn.init.zeros_(proj.bias)
        proj.requires_grad_(False)

    def grid(self, size: int) -> int:
        """Patches a side of an input of `size` pixels."""
        return patch_grid(size, self.arch, self.net)

    def positions(self, grid: int) -> Tensor:
        """(1, 1 + grid², dim), added to the tokens of inputs of that grid."""
        return resample_positions(self.net.pos_embed.data, grid)

    def __call__(self, net: Any, images: Tensor, positions: Tensor) -> Tensor:
        """Normalised images (N, 3, h, w) to tokens (N, 1 + L, dim) of the online network or its moving average."""
        x = net.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.net.cls_token.expand(len(x), -1, -1), x], dim=1) + positions
        tokens: Tensor = net.norm(net.blocks(x))
        return tokens

    def shared(self) -> dict[str, Tensor]:
        """The class token: one parameter, the online one, serves both networks."""
        return {"cls_token": self.net.cls_token.detach()}
