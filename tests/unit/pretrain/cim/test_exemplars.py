"""Geometry of CIM's inputs: properties, hand arithmetic, and agreement with an independent cut by Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as TF

from cim_bench.data.transforms import to_uint8
from cim_bench.pretrain.cim.exemplars import correlation_maps, cut_exemplars, rotated_boxes, sample_regions
from cim_bench.pretrain.cim.method import CIM, make_pixels
from cim_bench.pretrain.cim.photometric import photometric, sample_photometric

SIDE = 224
regions = st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(16, 224), st.integers(16, 224)).map(
    lambda r: (min(r[0], SIDE - r[2]), min(r[1], SIDE - r[3]), r[2], r[3])
)
degrees = st.integers(-45, 44)


def box_of(region: tuple[int, int, int, int], angle: int) -> torch.Tensor:
    left, top, width, height = (max(0, v) for v in region)
    corners = torch.tensor([left, top, left + width, top + height], dtype=torch.float64)
    return rotated_boxes(corners, torch.tensor(float(angle), dtype=torch.float64), SIDE)


def corners_in_view(box: torch.Tensor) -> torch.Tensor:
    """The box's four corners in view pixels relative to the centre, by the inverse rotation."""
    left, top, right, bottom, angle = box.tolist()
    a = np.deg2rad(angle)
    uv = np.array([(u, v) for u in (left, right) for v in (top, bottom)])
    return torch.tensor(
        np.stack([uv[:, 0] * np.cos(a) - uv[:, 1] * np.sin(a), uv[:, 0] * np.sin(a) + uv[:, 1] * np.cos(a)], 1)
    )


@given(region=regions, angle=degrees)
@settings(max_examples=400, deadline=None)
def test_box_never_leaves_the_image(region: tuple[int, int, int, int], angle: int) -> None:
    box = box_of(region, angle)
    assert box[2] > box[0]
    assert box[3] > box[1]
    assert corners_in_view(box).abs().max() <= SIDE / 2 + 1e-9


@given(region=regions, angle=degrees)
@settings(max_examples=200, deadline=None)
def test_exemplar_never_shows_padding(region: tuple[int, int, int, int], angle: int) -> None:
    """A white view stays white: any sample of padding would darken it."""
    exemplar = cut_exemplars(torch.ones(1, 3, SIDE, SIDE), box_of(region, angle).float().view(1, 1, 5), 64)
    assert exemplar.min() > 1 - 1e-5


@given(region=regions, angle=degrees)
@settings(max_examples=200, deadline=None)
def test_map_area_and_centre_match_the_box(region: tuple[int, int, int, int], angle: int) -> None:
    box = box_of(region, angle)
    resolution = 448
    drawn = correlation_maps(box, SIDE, resolution)
    width, height = float(box[2] - box[0]), float(box[3] - box[1])
    scale = resolution / SIDE
    perimeter = 2 * (width + height) * scale
    assert abs(int(drawn.sum()) - width * height * scale**2) <= perimeter + 4
    if min(width, height) > 16:
        centre = (drawn.nonzero().double().mean(0).flip(0) + 0.5) / scale - SIDE / 2
        assert (centre - corners_in_view(box).mean(0)).abs().max() < 1.0


@given(angle=st.sampled_from([-45, -30, -1, 1, 17, 44]))
@settings(deadline=None)
def test_interior_region_keeps_its_bounding_box(angle: int) -> None:
    """Far from the border nothing is shrunk: the box is w|cos| + h|sin| by w|sin| + h|cos|."""
    box = box_of((100, 90, 30, 40), angle)
    c, s = abs(np.cos(np.deg2rad(angle))), abs(np.sin(np.deg2rad(angle)))
    assert float(box[2] - box[0]) == pytest.approx(30 * c + 40 * s)
    assert float(box[3] - box[1]) == pytest.approx(30 * s + 40 * c)


def test_border_region_by_hand() -> None:
    """The whole view turned by 45 degrees: only the diamond's inscribed box survives.

    Half the diagonal is h*sqrt(2); the box spans it in both axes, so top left is cut first: at the left corner
    (-h*sqrt(2), .) the only row inside is 0, which moves the top edge to 0. Top right: at row 0 the right corner
    h*sqrt(2) is inside. Bottom left: at the bottom row h*sqrt(2) the only column inside is 0. Bottom right: at
    column h*sqrt(2) the only row inside is 0: an empty box, which the clamp of angles and scales never draws.
    """
    box = box_of((0, 0, SIDE, SIDE), 44)
    assert corners_in_view(box).abs().max() <= SIDE / 2 + 1e-9


def test_angle_zero_and_full_frame_is_a_plain_resize(photo: Image.Image) -> None:
    view = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    box = rotated_boxes(torch.tensor([0.0, 0.0, SIDE, SIDE]), torch.tensor(0.0), SIDE)
    assert box.tolist() == [-112, -112, 112, 112, 0]
    assert correlation_maps(box, SIDE, 160).all()
    ours = cut_exemplars(to_uint8(view)[None].float(), box.view(1, 1, 5), 56)[0, 0]
    reference = to_uint8(view.reduce(4)).float()  # the mean of 4 x 4 pixels
    assert (ours - reference).abs().max() <= 1.0  # Pillow rounds to whole numbers


def test_plain_crop_equals_pillow(photo: Image.Image) -> None:
    """An unrotated 128 x 64 region cut to 64 x 32 steps is the mean of 2 x 1 pixel blocks."""
    view = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    box = rotated_boxes(torch.tensor([20.0, 40.0, 148.0, 104.0]), torch.tensor(0.0), SIDE)
    ours = cut_exemplars(to_uint8(view)[None].float(), box.view(1, 1, 5), 64)[0, 0]
    reference = to_uint8(view.crop((20, 40, 148, 104)).reduce((2, 1))).float()
    assert (ours - reference).abs().max() <= 1.0


@pytest.mark.parametrize("angle", [-40, -13, 21, 45])
def test_rotated_cut_agrees_with_rotating_the_whole_image(photo: Image.Image, angle: int) -> None:
    """The public way, with good interpolation: rotate the view on a larger canvas, then crop and resize."""
    view = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    box = rotated_boxes(torch.tensor([60.0, 70.0, 150.0, 140.0]), torch.tensor(float(angle)), SIDE)
    turned = TF.rotate(view, angle, interpolation=TF.InterpolationMode.BICUBIC, expand=True)
    centre = torch.tensor([turned.width / 2, turned.height / 2]).repeat(2)
    crop = turned.resize((64, 64), Image.Resampling.BOX, box=tuple((box[:4] + centre).tolist()))
    ours = cut_exemplars(to_uint8(view)[None].float(), box.view(1, 1, 5), 64)[0, 0]
    assert (ours - to_uint8(crop).float()).abs().mean() < 4.0  # of 255: another interpolation, the same place
    shifted = cut_exemplars(to_uint8(view)[None].float(), (box + torch.tensor([6.0, 0, 6, 0, 0])).view(1, 1, 5), 64)[
        0, 0
    ]
    assert (shifted - to_uint8(crop).float()).abs().mean() > 2 * (ours - to_uint8(crop).float()).abs().mean()


def test_both_paths_agree(photo: Image.Image) -> None:
    """Workers cut image by image, the accelerator in one batch: the same bytes, to one step of rounding."""
    torch.manual_seed(0)
    pretext = CIM()
    views = torch.stack([to_uint8(TF.rotate(photo, 20 * i).resize((SIDE, SIDE))) for i in range(4)])
    drawn = torch.stack([sample_regions(6, SIDE, scale=(0.05, 0.48), ratio=(1 / 3, 3.0)) for _ in range(4)])
    boxes = rotated_boxes(drawn, torch.randint(-45, 45, (4, 6)).float(), SIDE)
    parameters = torch.stack([sample_photometric(6) for _ in range(4)])
    batch = make_pixels(views, boxes, parameters, pretext)
    for i in range(4):
        single = make_pixels(views[i : i + 1], boxes[i : i + 1], parameters[i : i + 1], pretext)
        for name in ("context", "exemplars"):
            assert (batch[name][i].int() - single[name][0].int()).abs().max() <= 1


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_regions_have_the_asked_area_and_aspect(seed: int) -> None:
    torch.manual_seed(seed)
    drawn = sample_regions(16, SIDE, scale=(0.05, 0.48), ratio=(1 / 3, 3.0))
    w, h = drawn[:, 2] - drawn[:, 0], drawn[:, 3] - drawn[:, 1]
    assert (drawn >= 0).all()
    assert (drawn <= SIDE).all()
    full = (w == SIDE) & (h == SIDE)
    fraction, aspect = w * h / SIDE**2, w / h
    assert ((fraction > 0.045) & (fraction < 0.49) | full).all()
    assert ((aspect > 0.32) & (aspect < 3.1)).all()


def test_photometric_leaves_unchosen_images_alone_and_applies_each_step(photo: Image.Image) -> None:
    images = to_uint8(photo.resize((64, 64)))[None].float() / 255
    off = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3]], dtype=torch.float32)
    assert photometric(images, off).equal(images)
    flip, solar, gray = off.clone(), off.clone(), off.clone()
    flip[0, 7], solar[0, 6], gray[0, 4] = 1, 1, 1
    assert photometric(images, flip).equal(images.flip(-1))
    by_pil = np.array(photo.resize((64, 64))).astype(int)
    inverted = torch.from_numpy(np.where(by_pil >= 128, 255 - by_pil, by_pil)).permute(2, 0, 1)  # PIL.ImageOps.solarize
    assert (photometric(images, solar)[0] * 255).round().int().equal(inverted.int())
    assert photometric(images, gray)[0].std(dim=0).max() < 1e-6


@pytest.mark.parametrize(
    ("column", "factor", "reference"),
    [
        (0, 1.4, TF.adjust_brightness),
        (1, 0.6, TF.adjust_contrast),
        (2, 1.2, TF.adjust_saturation),
        (3, 0.1, TF.adjust_hue),
    ],
)
def test_jitter_matches_torchvision(photo: Image.Image, column: int, factor: float, reference: object) -> None:
    images = to_uint8(photo.resize((64, 64)))[None].float() / 255
    parameters = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3]], dtype=torch.float32)
    parameters[0, column] = factor
    expected = reference(images, factor)  # type: ignore[operator]
    assert (photometric(images, parameters) - expected).abs().max() < 0.01


@pytest.fixture(scope="module")
def photo(photos_root: Path) -> Image.Image:
    return Image.open(sorted((photos_root / "train" / "astronaut").glob("*.png"))[0]).convert("RGB")
