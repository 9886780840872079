"""All that differs for CIM between families of encoders: how images become tokens."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Tokens(Protocol):
    """An encoder as CIM runs it.

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
        """What `__call__` wants for inputs of that grid."""
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
