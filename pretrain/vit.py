"""Shared parts of pretexts on plain ViTs: the encoder, its initialisation, and its grid of patches."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, MultipleOf
from torch import nn

from cim_bench.models.backbone import create_net
from cim_bench.spec import Arch

Width = Annotated[int, Ge(4), MultipleOf(4)]  # sin-cos positions take channels in fours


def check_heads(width: int, heads: int, name: str) -> None:
    """Refuse a width that attention heads do not divide; `name` begins the names of both settings."""
    if width % heads:
        raise ValueError(f"{name}_dim {width} does not divide by decoder_heads {heads}; choose a multiple of it")


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
