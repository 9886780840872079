"""Fixed positions against arithmetic by hand, and their interpolation."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cim_bench.models.positions import Interpolation, interpolate_positions, sincos_positions


def test_the_table_by_hand() -> None:
    """8 channels: sines, cosines of the column at frequencies 1 and 1/100, then those of the row."""
    table = sincos_positions(8, 3)
    assert table.shape == (1, 10, 8)
    assert table[0, 0].tolist() == [0.0] * 8
    row, column = 2, 1
    wanted = [f(place * omega) for place in (column, row) for f in (math.sin, math.cos) for omega in (1.0, 0.01)]
    torch.testing.assert_close(table[0, 1 + 3 * row + column], torch.tensor(wanted))


def test_channels_come_in_fours() -> None:
    with pytest.raises(ValueError, match="multiple of 4 channels, not 6"):
        sincos_positions(6, 3)


@pytest.mark.parametrize("how", get_args(Interpolation))
@settings(max_examples=15, deadline=None)
@given(old=st.integers(2, 9), new=st.integers(2, 9), prefix=st.integers(0, 2))
def test_prefix_and_constants_are_kept(how: Interpolation, old: int, new: int, prefix: int) -> None:
    """Bicubic weights sum to 1, so that a constant stays; rows without a place in the grid are copied."""
    first = torch.arange(prefix * 4.0).view(1, prefix, 4)
    positions = torch.cat([first, torch.full((1, old**2, 4), 0.75)], dim=1)
    made = interpolate_positions(positions, new, how, prefix=prefix)
    assert made.shape == (1, prefix + new**2, 4)
    assert made[:, :prefix].equal(first)
    torch.testing.assert_close(made[:, prefix:], torch.full((1, new**2, 4), 0.75))


@pytest.mark.parametrize("how", get_args(Interpolation))
def test_the_same_grid_changes_nothing(how: Interpolation) -> None:
    positions = sincos_positions(8, 5)
    assert interpolate_positions(positions, 5, how) is positions
