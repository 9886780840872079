"""How CIM runs a ViT or a ResNet as an encoder of images into tokens."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cim_bench.models.backbone import create_net
from cim_bench.models.positions import interpolate_positions, sincos_positions
from cim_bench.pretrain.vit import init_weights, patch_grid, plain_vit
from cim_bench.spec import Arch


class TokenEncoder(Protocol):
    """A network as CIM runs it: one callable for the online weights and for their moving average.

    Attributes:
        net: The freshly initialised online network, a timm model without head.
        dim: Channels of a token.
        prefix: Tokens that come before those of the grid's cells.
    """

    net: Any
    dim: int
    prefix: int

    def grid(self, size: int) -> int:
        """Cells a side for an input of `size` pixels.

        Raises:
            ValueError: If they do not fill it.
        """
        ...

    def positions(self, grid: int) -> Tensor:
        """Positions that `__call__` takes for inputs of that grid."""
        ...

    def __call__(self, net: Any, images: Tensor, positions: Tensor) -> Tensor:
        """Normalised images (N, 3, h, w) to tokens (N, prefix + L, dim), row by row.

        Args:
            net: `net`, or its moving average.
            images: Square.
            positions: Those of their grid.
        """
        ...

    def shared(self) -> dict[str, Tensor]:
        """Weights of `net` that serve its moving average too."""
        ...


class ViTEncoder:
    """A plain ViT on inputs of several sizes, to whose grids its fixed positions are interpolated (models/cim.py).

    Args:
        arch: A timm ViT with class token.
        method: Name of the method, for error messages.

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
        return interpolate_positions(self.net.pos_embed.data, grid, "offset")

    def __call__(self, net: Any, images: Tensor, positions: Tensor) -> Tensor:
        """Normalised images (N, 3, h, w) to tokens (N, 1 + L, dim) of the online network or its moving average."""
        x = net.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.net.cls_token.expand(len(x), -1, -1), x], dim=1) + positions
        tokens: Tensor = net.norm(net.blocks(x))
        return tokens

    def shared(self) -> dict[str, Tensor]:
        """The class token: one parameter, the online one, serves both networks."""
        return {"cls_token": self.net.cls_token.detach()}


class ResNetEncoder:
    """A ResNet: one token for each cell of the last feature map, no class token, nothing frozen.

    The online network and its moving average each normalise with the statistics of their own batch in training, and
    keep running statistics of what they were shown: exemplars the one, contexts the other.

    Args:
        arch: A timm ResNet; it starts from timm's initialisation.
    """

    prefix = 0

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.net = create_net(arch, num_classes=0)
        self.dim, self.stride = int(self.net.num_features), int(self.net.feature_info[-1]["reduction"])

    def grid(self, size: int) -> int:
        """Cells a side of the last feature map for an input of `size` pixels.

        Raises:
            ValueError: If `size` does not divide by the stride.
        """
        if size % self.stride:
            raise ValueError(
                f"size {size} does not divide by the stride of {self.stride} pixels of {self.arch}; choose a multiple"
            )
        return size // self.stride

    def positions(self, grid: int) -> Tensor:  # noqa: ARG002  of the contract
        """Nothing: convolutions need no positions; those of the context are added in the decoder."""
        return torch.empty(0)

    def __call__(self, net: Any, images: Tensor, positions: Tensor) -> Tensor:  # noqa: ARG002  of the contract
        """Normalised images (N, 3, h, w) to tokens (N, L, dim) of the online network or its moving average."""
        tokens: Tensor = net.forward_features(images).flatten(2).transpose(1, 2)
        return tokens

    def shared(self) -> dict[str, Tensor]:
        """Nothing: each network has its own weights and statistics."""
        return {}
