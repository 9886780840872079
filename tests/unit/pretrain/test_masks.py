"""What is hidden: exact counts, equal chances, and nothing but the seed decides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode

from cim_bench.common.seeds import seed_all
from cim_bench.pretrain.masks import MaskedInputs, enlarge, mae_hidden, random_mask, simmim_hidden, split_mask

SIZES = st.integers(2, 200).flatmap(lambda cells: st.tuples(st.just(cells), st.integers(1, cells - 1)))


@given(SIZES, st.integers(0, 2**32))
def test_masks_hide_exactly_so_many_and_depend_on_the_seed_alone(sizes: tuple[int, int], seed: int) -> None:
    cells, hidden = sizes
    masks = []
    for _ in range(2):
        torch.manual_seed(seed)
        masks.append(random_mask(cells, hidden))
    assert masks[0].shape == (cells,)
    assert int(masks[0].sum()) == hidden
    assert torch.equal(*masks)


def test_every_cell_is_hidden_equally_often() -> None:
    """4,000 masks of 12 of 16: a cell's count has mean 3,000 and standard deviation 27."""
    torch.manual_seed(0)
    counts = torch.stack([random_mask(16, 12) for _ in range(4000)]).sum(0)
    assert ((counts - 3000).abs() < 5 * 27).all()


@given(SIZES, st.integers(0, 2**32))
def test_split_partitions_the_cells(sizes: tuple[int, int], seed: int) -> None:
    cells, hidden = sizes
    torch.manual_seed(seed)
    mask = torch.stack([random_mask(cells, hidden) for _ in range(3)])
    visible, covered = split_mask(mask, hidden)
    assert mask.gather(1, covered).all()
    assert not mask.gather(1, visible).any()
    assert torch.equal(torch.cat([visible, covered], 1).sort(1).values, torch.arange(cells).expand(3, -1))
    assert (covered.diff(dim=1) > 0).all()
    assert (visible.diff(dim=1) > 0).all()


@given(st.integers(1, 5), st.integers(1, 6))
def test_enlarged_cells_are_squares(grid: int, factor: int) -> None:
    mask = torch.rand(2, grid, grid) < 0.5
    large = enlarge(mask, factor)
    assert large.shape == (2, grid * factor, grid * factor)
    for row in range(grid * factor):
        for column in range(grid * factor):
            assert torch.equal(large[:, row, column], mask[:, row // factor, column // factor])


def test_published_counts() -> None:
    """MAE: 147 of 14x14 patches; SimMIM: 30 of 7x7 squares (29.4 rounded up)."""
    assert mae_hidden(196, 0.75) == 147
    assert simmim_hidden(49, 0.6) == 30


@given(st.integers(2, 400), st.floats(0.01, 0.99))
def test_counts_round_as_published(cells: int, ratio: float) -> None:
    for hidden, lowest in ((mae_hidden, cells * ratio), (simmim_hidden, cells * ratio)):
        try:
            count = hidden(cells, ratio)
        except ValueError:
            assert ratio < 1 / cells or ratio > 1 - 1 / cells
        else:
            assert lowest - 1e-6 <= count < lowest + 1 + 1e-6


@pytest.mark.parametrize(("cells", "ratio"), [(1, 0.6), (16, 0.0), (16, 1.0), (4, 0.9)])
def test_masks_of_all_or_nothing_are_refused(cells: int, ratio: float) -> None:
    with pytest.raises(ValueError, match=f"mask_ratio {ratio} hides"):
        simmim_hidden(cells, ratio)


def test_inputs_depend_on_seed_epoch_and_index(photos_root: object) -> None:
    from pathlib import Path

    file = sorted((Path(str(photos_root)) / "train" / "chelsea").iterdir())[0]
    image = Image.open(file).convert("RGB")
    inputs = MaskedInputs(32, scale=(0.2, 1.0), interpolation=InterpolationMode.BICUBIC, cells=16, hidden=12)
    made = []
    for place in ((0, 3, 5), (0, 3, 5), (0, 4, 5), (1, 3, 5)):
        seed_all(*place)
        made.append(inputs(image))
    assert made[0]["image"].shape == (3, 32, 32)
    assert made[0]["image"].dtype == torch.uint8
    assert all(torch.equal(made[0][name], made[1][name]) for name in ("image", "mask"))
    for other in made[2:]:
        assert not torch.equal(made[0]["mask"], other["mask"])
        assert not torch.equal(made[0]["image"], other["image"])
