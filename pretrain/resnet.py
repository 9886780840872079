"""How CIM runs a ResNet: the cells of its last feature map are the tokens (docs/pretexts/cim_resnet.md)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cim_bench.backbone import create_net
from cim_bench.recipe import Arch


class ResNetTokens:
    """How CIM runs a ResNet: a token for each cell of the last feature map, no class token, nothing frozen.

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
