from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from cim_bench.evals.segmentation import transforms
from cim_bench.evals.segmentation.transforms import (
    SegmentationTrain,
    bounded_size,
    distort,
    draw_crop,
    hsv_to_rgb,
    pad,
    resize_to_bound,
    rgb_to_hsv,
    scale_pixels,
    scale_saturation,
    shift_hue,
)

SIDES = st.integers(1, 90)
SEEDS = st.integers(0, 2**31)


def scene(height: int, width: int, seed: int) -> tuple[Image.Image, Tensor]:
    """An image whose red is 8 times the class of its pixel, in blocks, some of them ignored (red 0)."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 6, (height // 8 + 1, width // 8 + 1)).repeat(8, 0).repeat(8, 1)[:height, :width]
    blocks = blocks.astype(np.uint8)
    image = np.stack([blocks * 8, np.full_like(blocks, 200), np.full_like(blocks, 30)], axis=-1)
    return Image.fromarray(image), torch.from_numpy(np.where(blocks == 0, 255, blocks).astype(np.uint8))


def test_sizes_against_hand_arithmetic() -> None:
    # mmcv: scale min(2048 / long, 512 / short), sides int(side * scale + 0.5)
    assert bounded_size(512, 683, (2048, 512)) == (512, 683)
    assert bounded_size(683, 512, (2048, 512)) == (683, 512)
    assert bounded_size(256, 341, (2048, 512)) == (512, 682)
    assert bounded_size(100, 1000, (2048, 512)) == (205, 2048)  # the long side binds: 2.048
    assert bounded_size(300, 400, (1024, 256)) == (256, 341)  # 341.33
    assert bounded_size(3, 1000, (100, 100)) == (1, 100)


@given(height=st.integers(1, 3000), width=st.integers(1, 3000), ratio=st.floats(0.5, 2))
def test_sizes_fit_the_bound_and_touch_it(height: int, width: int, ratio: float) -> None:
    bound = int(2048 * ratio), int(512 * ratio)
    size = bounded_size(height, width, bound)
    assert max(size) <= bound[0]
    assert min(size) <= bound[1]
    assert max(size) == bound[0] or min(size) == bound[1]


@given(height=SIDES, width=SIDES, seed=SEEDS, crop=st.integers(1, 100))
def test_image_and_mask_stay_aligned_to_the_pixel(height: int, width: int, seed: int, crop: int) -> None:
    image, mask = scene(height, width, seed)
    keep = (max(height, width), min(height, width))  # the image's own size
    torch.manual_seed(seed)
    made = SegmentationTrain(crop=crop, bound=keep, ratios=(1.0, 1.0), distort=False)(image, mask)
    pixels, labels = made["image"], made["mask"]
    assert pixels.shape == (3, crop, crop)
    assert labels.shape == (crop, crop)
    assert pixels.dtype == labels.dtype == torch.uint8
    seen_h, seen_w = min(crop, height), min(crop, width)
    red = pixels[0, :seen_h, :seen_w]
    assert torch.equal(torch.where(red == 0, 255, red // 8), labels[:seen_h, :seen_w])
    padded = torch.ones(crop, crop, dtype=torch.bool)
    padded[:seen_h, :seen_w] = False
    assert (labels[padded] == 255).all()
    assert (pixels[:, padded] == torch.tensor([[124], [116], [104]])).all()  # ImageNet's mean colour, not black


@given(height=st.integers(8, 90), width=st.integers(8, 90), seed=SEEDS)
def test_no_resize_invents_a_label(height: int, width: int, seed: int) -> None:
    image, mask = scene(height, width, seed)
    torch.manual_seed(seed)
    made = SegmentationTrain(crop=64, bound=(256, 64))(image, mask)
    assert set(made["mask"].unique().tolist()) <= {*mask.unique().tolist(), 255}


def test_a_resized_mask_lies_where_its_image_does() -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:, 32:] = 255
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[:, 32:] = 1
    for ratio in (0.5, 0.8, 1.7, 2.0):
        torch.manual_seed(0)
        transform = SegmentationTrain(crop=200, bound=(64, 64), ratios=(ratio, ratio), distort=False, flip=0.0)
        made = transform(Image.fromarray(image), mask)
        side = int(64 * ratio)
        bright = made["image"][0, :side, :side] > 127
        differ = (bright != (made["mask"][:side, :side] == 1)).sum(dim=1)
        assert (differ <= 1).all()  # nearest by the upper left corner, as OpenCV's: half a pixel beside bilinear


def test_ratios_are_drawn_from_their_range_and_bounds_are_cut_to_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    whole = bounded_size

    def spy(height: int, width: int, bound: tuple[int, int]) -> tuple[int, int]:
        seen.append(bound)
        return whole(height, width, bound)

    monkeypatch.setattr(transforms, "bounded_size", spy)
    image, mask = scene(20, 20, 0)
    torch.manual_seed(0)
    for _ in range(200):
        SegmentationTrain(crop=8, bound=(80, 20))(image, mask)
    shorts = {short for _, short in seen}
    assert shorts == set(range(10, 40))
    assert all(long // 4 == short for long, short in seen)


def test_a_seed_gives_the_same_sample_again() -> None:
    image, mask = scene(60, 80, 1)
    made = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        made.append(SegmentationTrain(crop=32, bound=(256, 64))(image, mask))
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])
    assert not torch.equal(made[0]["image"], made[2]["image"])


def crops_drawn(mask: Tensor, crop: int, share: float, places: list[tuple[int, int]]) -> tuple[int, int, int]:
    """Result and number of draws where places come from a list."""
    left = list(places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "_place", lambda *_: left.pop(0))
        found = draw_crop(mask, crop, share)
    return (*found, len(places) - len(left))


def test_a_crop_is_drawn_until_no_class_fills_it() -> None:
    mask = torch.full((4, 40), 255, dtype=torch.uint8)
    mask[:, 0:4] = 0  # one class
    mask[:, 8:11], mask[:, 11] = 1, 2  # 12 of 16 pixels: 0.75 is not below 0.75
    mask[:, 16:18], mask[:, 18:20] = 1, 2  # 8 and 8
    mask[0, 24], mask[0, 25], mask[1, 24] = 3, 4, 4  # 2 of 3 labelled pixels; the rest is ignored
    good, one, full, few, none = (0, 16), (0, 0), (0, 8), (0, 24), (0, 32)
    assert crops_drawn(mask, 4, 0.75, [one, full, none, good]) == (*good, 4)
    assert crops_drawn(mask, 4, 0.75, [few, good]) == (*few, 1)
    assert crops_drawn(mask, 4, 0.76, [full, good]) == (*full, 1)
    assert crops_drawn(mask, 4, 1.0, [one, good]) == (*one, 1)
    # ten places are looked at; the eleventh is taken unseen (RandomCrop of mmseg)
    assert crops_drawn(mask, 4, 0.75, [one] * 10 + [none, good]) == (*none, 11)


@given(height=SIDES, width=SIDES, crop=SIDES, seed=SEEDS)
def test_a_crop_lies_inside(height: int, width: int, crop: int, seed: int) -> None:
    torch.manual_seed(seed)
    top, left = draw_crop(torch.zeros(height, width, dtype=torch.uint8), crop, 0.75)
    assert 0 <= top <= max(height - crop, 0)
    assert 0 <= left <= max(width - crop, 0)


def test_padding_is_at_the_bottom_and_right() -> None:
    image, mask = torch.full((3, 1, 2), 9, dtype=torch.uint8), torch.full((1, 2), 7, dtype=torch.uint8)
    pixels, labels = pad(image, mask, 3, (0.5, 0.0, 1.0))
    assert labels.tolist() == [[7, 7, 255], [255, 255, 255], [255, 255, 255]]
    assert pixels[:, 0, 0].tolist() == [9, 9, 9]
    assert pixels[:, 2, 2].tolist() == [128, 0, 255]


def test_resize_for_tests_has_no_antialias_unless_asked() -> None:
    stripes = torch.zeros(3, 64, 64, dtype=torch.uint8)
    stripes[:, :, ::4] = 255
    plain = resize_to_bound(stripes, (16, 16))
    smooth = resize_to_bound(stripes, (16, 16), antialias=True)
    assert plain.shape == smooth.shape == (3, 16, 16)
    # pixel i of 16 lies at 4 i + 1.5 of 64, between a pair of black columns
    assert plain.unique().tolist() == [0]
    assert 55 < float(smooth.float().mean()) < 72  # a quarter of 255


ALL = torch.stack(torch.meshgrid(*[torch.arange(0, 256, 15)] * 3, indexing="ij")).flatten(1)[:, None].to(torch.uint8)


def test_hsv_is_colorsys_on_opencvs_grid() -> None:
    hsv = rgb_to_hsv(ALL)
    for rgb, found in zip(ALL[:, 0].T.tolist(), hsv[:, 0].T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in rgb))
        assert abs((found[0] - hue * 180 + 90) % 180 - 90) <= 0.5001
        assert abs(found[1] - saturation * 255) <= 0.5001
        assert found[2] == round(value * 255)
    assert int(hsv[0].max()) < 180


def test_rgb_is_colorsys_with_fractions_cut() -> None:
    hue, saturation, value = ALL.clone()
    grid = torch.stack([hue % 180, saturation, value])
    for hsv, found in zip(grid[:, 0].T.tolist(), hsv_to_rgb(grid)[:, 0].T.tolist(), strict=True):
        exact = [255 * level for level in colorsys.hsv_to_rgb(hsv[0] / 180, hsv[1] / 255, hsv[2] / 255)]
        assert all(-1e-3 <= want - got < 1.001 for want, got in zip(exact, found, strict=True))


@given(factor=st.floats(0.5, 1.5), offset=st.floats(-32, 32))
def test_pixels_are_scaled_clipped_and_cut(factor: float, offset: float) -> None:
    values = torch.arange(256, dtype=torch.uint8)
    expected = np.clip(values.numpy().astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)
    assert (scale_pixels(values, factor, offset).int() - torch.from_numpy(expected).int()).abs().max() <= 1


def test_saturation_and_hue_by_hand() -> None:
    colour = torch.tensor([200, 100, 100], dtype=torch.uint8).view(3, 1, 1)  # hue 0, saturation 127.5 -> 128, value 200
    assert rgb_to_hsv(colour).flatten().tolist() == [0, 128, 200]
    # 128 * 1.5 = 192; 200 - 200 * 192 / 255 = 49.4
    assert scale_saturation(colour, 1.5).flatten().tolist() == [200, 49, 49]
    # 60 steps of 2 degrees: red becomes green; 200 - 200 * 128 / 255 = 99.6
    assert shift_hue(colour, 60).flatten().tolist() == [99, 200, 99]
    assert torch.equal(shift_hue(colour, -120), shift_hue(colour, 60))
    grey = torch.full((3, 2, 2), 77, dtype=torch.uint8)
    assert torch.equal(shift_hue(grey, 17), grey)
    assert torch.equal(scale_saturation(grey, 0.5), grey)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float]]:
    """What distortion does, in place of doing it."""
    made: list[tuple[str, float, float]] = []

    def note(name: str) -> Callable[..., Tensor]:
        def call(image: Tensor, first: float, second: float = 0.0) -> Tensor:
            made.append((name, first, second))
            return image

        return call

    for name in ("scale_pixels", "scale_saturation", "shift_hue"):
        monkeypatch.setattr(transforms, name, note(name))
    return made


def test_distortion_follows_its_definition(calls: list[tuple[str, float, float]]) -> None:
    image = torch.zeros(3, 1, 1, dtype=torch.uint8)
    torch.manual_seed(0)
    orders, counts = set(), dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0)
    hues: set[float] = set()
    for _ in range(2000):
        calls.clear()
        distort(image)
        names = []
        for name, first, second in calls:
            if name == "scale_pixels" and first == 1.0:
                names.append("brightness")
                assert -32 <= second <= 32
            elif name == "shift_hue":
                names.append("hue")
                hues.add(first)
            else:
                names.append("contrast" if name == "scale_pixels" else "saturation")
                assert 0.5 <= first <= 1.5
        orders.add(tuple(names))
        for name in names:
            counts[name] += 1
    assert hues == set(range(-18, 18))
    assert all(900 < count < 1100 for count in counts.values())  # half of 2000; 4.5 standard deviations
    first = {order for order in orders if "contrast" in order and order.index("contrast") < len(order) - 1}
    assert ("brightness", "contrast", "saturation", "hue") in first
    assert ("brightness", "saturation", "hue", "contrast") in orders
    assert all(order[:1] == ("brightness",) for order in orders if "brightness" in order)
    assert not {order for order in orders if "hue" in order and "saturation" in order[order.index("hue") :]}


@given(seed=SEEDS)
def test_distortion_leaves_masks_and_shapes_alone(seed: int) -> None:
    image, mask = scene(24, 30, seed)
    bound = (30, 24)
    made = []
    for flag in (False, True):
        torch.manual_seed(seed)
        made.append(SegmentationTrain(crop=32, bound=bound, ratios=(1, 1), distort=flag)(image, mask))
    assert torch.equal(made[0]["mask"], made[1]["mask"])
    assert torch.equal(made[0]["image"][:, 24:], made[1]["image"][:, 24:])  # padding is added after distortion
