from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from cim_bench.common.seeds import seed_all
from cim_bench.data.transforms import EvalTransform, FinetuneTransform, SingleRandomResizedCrop, to_uint8
from cim_bench.spec import Data

MAE_FINETUNE = "rand-m9-mstd0.5-inc1"


@pytest.fixture(scope="module")
def photo(small_photos: Data) -> Image.Image:
    """Two real crops side by side: 128 wide, 64 high."""
    folder = Path(small_photos.root, "train")
    wide = Image.new("RGB", (128, 64))
    for left, name in ((0, "chelsea/000.jpg"), (64, "coffee/003.jpg")):
        wide.paste(Image.open(folder / name), (left, 0))
    return wide


def test_pixels_keep_their_place(photo: Image.Image) -> None:
    pixels = to_uint8(photo)
    assert (pixels.shape, pixels.dtype) == ((3, 64, 128), torch.uint8)
    assert tuple(pixels[:, 20, 100].tolist()) == photo.getpixel((100, 20))
    assert pixels.is_contiguous()
    pixels.zero_()
    assert photo.getextrema() != ((0, 0),) * 3


@pytest.mark.parametrize(("size", "crop_pct"), [(224, 0.875), (32, 0.875), (48, 1.0), (64, 0.95), (33, 0.9)])
def test_the_evaluation_transform_is_pils_resize_and_a_centre_crop(
    photo: Image.Image, size: int, crop_pct: float
) -> None:
    short = math.floor(size / crop_pct)
    resized = photo.resize((2 * short, short), Image.Resampling.BICUBIC)
    left, top = round((2 * short - size) / 2), round((short - size) / 2)
    by_hand = np.asarray(resized.crop((left, top, left + size, top + size)))
    made = EvalTransform(size, crop_pct)(photo)
    assert (made.shape, made.dtype) == ((3, size, size), torch.uint8)
    assert np.array_equal(made.permute(1, 2, 0).numpy(), by_hand)


def test_the_evaluation_transform_is_torchvisions_usual_chain(photo: Image.Image) -> None:
    chain = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.PILToTensor(),
        ]
    )
    assert torch.equal(EvalTransform(224, 0.875)(photo), chain(photo))


@pytest.mark.parametrize("size", [(64, 64), (64, 200), (300, 65), (8, 8), (1, 3)])
def test_the_evaluation_transform_takes_every_shape(photo: Image.Image, size: tuple[int, int]) -> None:
    assert EvalTransform(32, 0.875)(photo.resize(size)).shape == (3, 32, 32)


def mae_crop(image: Image.Image, size: int) -> torch.Tensor:
    """facebookresearch/mae, util/crop.py, then RandomHorizontalFlip, as main_linprobe.py chains them."""
    width, height = functional.get_image_size(image)
    area = height * width
    target_area = area * torch.empty(1).uniform_(0.08, 1.0).item()
    log_ratio = torch.log(torch.tensor((3 / 4, 4 / 3)))
    aspect = torch.exp(torch.empty(1).uniform_(float(log_ratio[0]), float(log_ratio[1]))).item()
    w, h = round(math.sqrt(target_area * aspect)), round(math.sqrt(target_area / aspect))
    w, h = min(w, width), min(h, height)
    i = int(torch.randint(0, height - h + 1, size=(1,)).item())
    j = int(torch.randint(0, width - w + 1, size=(1,)).item())
    cropped = functional.resized_crop(image, i, j, h, w, [size, size], functional.InterpolationMode.BICUBIC)
    return to_uint8(transforms.RandomHorizontalFlip()(cropped))


@given(st.integers(0, 10**6), st.integers(8, 64))
def test_the_probing_crop_is_maes(photo: Image.Image, seed: int, size: int) -> None:
    seed_all(seed, "crop")
    made = SingleRandomResizedCrop(size)(photo)
    assert (made.shape, made.dtype) == ((3, size, size), torch.uint8)
    seed_all(seed, "crop")
    assert torch.equal(made, mae_crop(photo, size))


def test_the_probing_crop_repeats_under_one_seed_and_differs_under_another(photo: Image.Image) -> None:
    def draw(*seed: int | str) -> torch.Tensor:
        seed_all(*seed)
        return SingleRandomResizedCrop(32)(photo)

    assert torch.equal(draw(1, 2, 3), draw(1, 2, 3))
    assert not torch.equal(draw(1, 2, 3), draw(1, 2, 4))
    assert not torch.equal(draw(1, 2, 3), draw(1, 3, 2))


def test_the_probing_crop_of_a_thin_image_is_clipped_to_it() -> None:
    thin = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (3, 1, 3)))
    for seed in range(20):
        seed_all(seed)
        assert SingleRandomResizedCrop(16)(thin).shape == (3, 16, 16)


@pytest.mark.parametrize("auto_augment", ["", MAE_FINETUNE])
@pytest.mark.parametrize("reprob", [0.0, 1.0])
def test_the_finetuning_transform_is_finite_and_repeats(photo: Image.Image, auto_augment: str, reprob: float) -> None:
    transform = FinetuneTransform(32, auto_augment=auto_augment, reprob=reprob, scale=(0.08, 1.0))
    for seed in range(15):
        seed_all(seed)
        made = transform(photo)
        assert (made.shape, made.dtype) == ((3, 32, 32), torch.float32)
        assert torch.isfinite(made).all()
        inside = bool(((made >= -1e-5) & (made <= 1 + 1e-5)).all())
        assert inside or reprob == 1.0
        seed_all(seed)
        assert torch.equal(made, transform(photo))


def test_erased_boxes_are_normal_noise_in_normalised_space(photo: Image.Image) -> None:
    transform = FinetuneTransform(64, auto_augment="", reprob=1.0, scale=(1.0, 1.0))
    plain = FinetuneTransform(64, auto_augment="", reprob=0.0, scale=(1.0, 1.0))
    noise = []
    for seed in range(40):
        seed_all(seed)
        made = transform(photo)
        seed_all(seed)
        changed = (made - plain(photo)).abs().amax(dim=0) > 1e-4
        assert 0.01 < changed.float().mean() < 0.4
        noise.append(((made - transform.mean) / transform.std)[:, changed])
    drawn = torch.cat(noise, dim=1)
    assert abs(float(drawn.mean())) < 0.05
    assert abs(float(drawn.std()) - 1) < 0.05


def test_seeding_covers_python_numpy_and_torch() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    seed_all(3, "a")
    first = draw()
    seed_all(3, "a")
    assert draw() == first
    seed_all(3, "b")
    assert not set(draw()) & set(first)


def test_every_part_of_a_seed_counts() -> None:
    drawn = set()
    for parts in [(0,), (1,), (0, 0), (0, 1), (1, 0), ("0",), (0, "step", 1), (0, "step", 2)]:
        seed_all(*parts)
        drawn.add(float(torch.rand((), dtype=torch.float64)))
    assert len(drawn) == 8
