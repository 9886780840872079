"""Stand-ins for packages that public code imports and these tests do without: fused kernels, and einops' three uses."""

from __future__ import annotations

import types

from torch import Tensor, nn


class SwiGLU(nn.Module):
    """xformers' with its packed projection: gate and value in ``w12``."""

    def __init__(self, in_features: int, hidden_features: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(in_features, 2 * hidden_features)
        self.w3 = nn.Linear(hidden_features, in_features)

    def forward(self, x: Tensor) -> Tensor:
        gate, hidden = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(nn.functional.silu(gate) * hidden)
        return out


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """xformers', of (N, tokens, heads, width)."""
    turned = (x.transpose(1, 2) for x in (query, key, value))
    return nn.functional.scaled_dot_product_attention(*turned).transpose(1, 2)


def rearrange(x: Tensor, pattern: str, **sizes: int) -> Tensor:
    """Einops' ``... (d r) -> ... d r`` where a size is given, and the way back where none is."""
    return x.unflatten(-1, (-1, *sizes.values())) if sizes else x.flatten(-2)


def repeat(x: Tensor, pattern: str, r: int) -> Tensor:
    """Einops' ``... n -> ... (n r)``."""
    return x.repeat_interleave(r, dim=-1)


def stand_ins() -> dict[str, types.ModuleType]:
    """Modules by their names, as ``sys.modules`` holds them."""
    contents = {
        "apex": {},
        "apex.normalization": {"FusedLayerNorm": nn.LayerNorm},
        "einops": {"rearrange": rearrange, "repeat": repeat},
        "tensorboardX": {},
        "xformers": {},
        "xformers.ops": {"SwiGLU": SwiGLU, "memory_efficient_attention": attention},
    }
    made = {}
    for name, members in contents.items():
        made[name] = types.ModuleType(name)
        vars(made[name]).update(members)
    made["xformers"].ops = made["xformers.ops"]  # type: ignore[attr-defined]
    return made
