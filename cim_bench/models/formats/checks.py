"""What the values of public files look like, where their keys alone do not tell the format."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from cim_bench.models.formats.format import Check, State
from cim_bench.models.positions import sincos_positions

SINCOS = "its positions are the fixed sin-cos table of MAE and CIM"
SINCOS_MOCO3 = "its positions are MoCo v3's fixed sin-cos table"
NO_SINCOS = "its positions are no fixed sin-cos table"
VISUAL_TOKENS, FEATURES = "its lm_head predicts 8192 visual tokens", "its lm_head predicts features"
SHARED_TABLE = "its blocks share one table of relative positions"
BLOCK_TABLES = "each of its blocks has a table of relative positions"
PLAIN_TRUNK = "it has absolute positions alone, and no layer scale"
NO_CLASS_TOKEN = "it has no class token"
ROPE_BASE = "its rotary periods are those of base 100"


def sincos_table_of(positions: Tensor) -> str:
    """Which fixed sin-cos table some positions are.

    Args:
        positions: (1, 1 + grid², width), or without the class token's; of any other shape they are none.

    Returns:
        `SINCOS` for the table of MAE and CIM; `SINCOS_MOCO3` for MoCo v3's, whose halves for rows and columns are
        swapped (moco-v3, vits.py); `NO_SINCOS` for any other positions.
    """
    if positions.ndim != 3 or positions.shape[2] % 4 or positions.shape[2] == 0:
        return NO_SINCOS
    side = math.isqrt(max(positions.shape[1] - 1, 0))
    if side == 0 or side**2 + 1 != positions.shape[1]:
        return NO_SINCOS
    # half precision rounds values of up to 1 by 4e-3 in bfloat16; learned positions differ by far more
    tolerance = 1e-3 if positions.element_size() > 2 else 5e-3
    table, found = sincos_positions(positions.shape[2], side), positions.float()
    if float((found - table).abs().max()) < tolerance:
        return SINCOS
    swapped = table.roll(positions.shape[2] // 2, dims=2)
    return SINCOS_MOCO3 if float((found - swapped).abs().max()) < tolerance else NO_SINCOS


def positions(expect: str) -> Check:
    """Which fixed table the positions are, if any: `SINCOS`, `SINCOS_MOCO3` or `NO_SINCOS`."""

    def look(state: State) -> str:
        return sincos_table_of(state["pos_embed"]) if "pos_embed" in state else NO_SINCOS

    return Check(look, expect)


def patch_projection(*, trained: bool) -> Check:
    """Whether the patch projection's bias left its initial value of exactly 0."""
    words = "its patch projection was {}trained"

    def look(state: State) -> str:
        bias = state.get("patch_embed.proj.bias")
        return words.format("never " if bias is not None and bool((bias == 0).all()) else "")

    return Check(look, words.format("" if trained else "never "))


def class_token(state: State) -> str:
    """Whether there is a class token: `NO_CLASS_TOKEN`, or that there is one."""
    return "it has a class token" if any(key.endswith("cls_token") for key in state) else NO_CLASS_TOKEN


def predicts(state: State) -> str:
    """What a prediction head's rows are: `VISUAL_TOKENS` (of DALL-E or VQ-KD), else `FEATURES`."""
    return VISUAL_TOKENS if state["lm_head.weight"].shape[:1] == (8192,) else FEATURES


def trunk(state: State) -> str:
    """How BEiT's attention knows places: `SHARED_TABLE`, `BLOCK_TABLES`, `PLAIN_TRUNK`, or another way."""
    names = {re.sub(r"\.\d+\.", ".", key).removeprefix("encoder.") for key in state}
    if "rel_pos_bias.relative_position_bias_table" in names:
        return SHARED_TABLE
    if "blocks.attn.relative_position_bias_table" in names:
        return BLOCK_TABLES
    plain = "pos_embed" in names and "blocks.gamma_1" not in names
    return PLAIN_TRUNK if plain else "it has neither tables of relative positions nor absolute positions alone"


def rotary(state: State) -> str:
    """Whether DINOv3's rotary periods are those that timm computes: 100^(2i / (head width / 2))."""
    periods = next((value.float() for key, value in state.items() if key.endswith("rope_embed.periods")), None)
    if periods is None:
        return ROPE_BASE
    wanted = 100.0 ** (torch.arange(len(periods)) / len(periods))
    return (
        ROPE_BASE if bool((periods / wanted - 1).abs().max() < 0.01) else "its rotary periods are not those of base 100"
    )
