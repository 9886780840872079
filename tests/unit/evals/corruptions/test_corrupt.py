"""The contract of `corrupt`, on real photographs: damage that grows, independent samples, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cim_bench.evals.corruptions.generate import CORRUPTIONS, SEVERITIES, corrupt, corrupt_as_released, jpeg

FIXED = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
# Severities that the published constants order by the size of the change. Glass blur trades shift for rounds; snow,
# frost and fog also cover what could change; the elastic transform warps the whole image at 1 and 2 only.
ORDERED: dict[str, tuple[tuple[int, ...], ...]] = {
    "glass_blur": ((1, 3, 5), (2, 3), (2, 4, 5)),
    "snow": ((1, 2, 4, 5), (1, 3)),
    "frost": ((1, 2), (1, 5)),
    "fog": ((1, 2, 3),),
    "elastic_transform": ((1, 2), (3, 4, 5)),
}


@pytest.fixture(scope="module")
def images(photos_root: Path) -> torch.Tensor:
    """Four real photographs, (4, 3, 96, 96) uint8."""
    paths = [photos_root / "val" / name / "001.png" for name in ("astronaut", "chelsea", "coffee", "rocket")]
    arrays = [np.asarray(Image.open(path).resize((96, 96), Image.Resampling.BICUBIC)) for path in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


SEEDS = torch.tensor([11, 12, 13, 14])


def test_canonical_order() -> None:
    assert CORRUPTIONS == (
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "snow",
        "frost",
        "fog",
        "brightness",
        "contrast",
        "elastic_transform",
        "pixelate",
        "jpeg_compression",
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_grows_with_severity(images: torch.Tensor, name: str) -> None:
    damaged = {severity: corrupt(images, name, severity, SEEDS) for severity in SEVERITIES}
    change = {severity: (image.float() - images.float()).abs().mean().item() for severity, image in damaged.items()}
    for order in ORDERED.get(name, (SEVERITIES,)):
        assert [change[s] for s in order] == sorted({change[s] for s in order}), change
    assert all(image.shape == images.shape and image.dtype == torch.uint8 for image in damaged.values())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_sample_depends_on_its_own_seed_alone(images: torch.Tensor, name: str) -> None:
    for severity in (1, 5):
        together = corrupt(images, name, severity, SEEDS)
        alone = [corrupt(images[i : i + 1], name, severity, SEEDS[i : i + 1]) for i in range(4)]
        assert together.equal(torch.cat(alone))
        assert together.flip(0).equal(corrupt(images.flip(0), name, severity, SEEDS.flip(0)))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_batch_at_once_is_its_samples(images: torch.Tensor, name: str) -> None:
    """What an accelerator is given: the functions take whole batches, and rounding alone may tell."""
    from cim_bench.evals.corruptions.generate import _TABLE
    from cim_bench.evals.corruptions.ops import generator

    draw, apply = _TABLE[name]
    draws = [draw(generator(seed, name, 3), 3, 96, 96) for seed in SEEDS.tolist()]
    whole = apply(images, 3, *(torch.stack(values) for values in zip(*draws, strict=True)))
    assert (whole.int() - corrupt(images, name, 3, SEEDS).int()).abs().max() <= 1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_random_corruptions_follow_the_seed(images: torch.Tensor, name: str) -> None:
    same = corrupt(images[:1], name, 3, SEEDS[:1]).equal(corrupt(images[:1], name, 3, SEEDS[1:2]))
    assert same == (name in FIXED)


def test_one_seed_gives_each_corruption_and_severity_noise_of_its_own(images: torch.Tensor) -> None:
    grey = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    first, second = (corrupt(grey, "gaussian_noise", severity, SEEDS[:1]).double().flatten() for severity in (1, 2))
    assert abs(torch.corrcoef(torch.stack((first, second)))[0, 1]) < 0.05  # 5 standard errors of 12,288 values


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_other_shapes(images: torch.Tensor, name: str) -> None:
    oblong = images[:2, :, 10:74, :]
    assert corrupt(oblong, name, 5, SEEDS[:2]).shape == (2, 3, 64, 96)
    assert corrupt(images[:, :, :32, :32], name, 5, SEEDS).shape == (4, 3, 32, 32)


def test_released_is_jpeg_of_85(images: torch.Tensor) -> None:
    plain = corrupt(images, "contrast", 2, SEEDS)
    assert corrupt_as_released(images, "contrast", 2, SEEDS).equal(jpeg(plain, 85))


def test_images_are_left_alone(images: torch.Tensor) -> None:
    before = images.clone()
    for name in CORRUPTIONS:
        corrupt(images, name, 1, SEEDS)
    assert images.equal(before)


def test_refusals(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="no corruption 'spatter'; choose one of gaussian_noise, shot_noise"):
        corrupt(images, "spatter", 1, SEEDS)
    with pytest.raises(ValueError, match="no severity 6; choose one of 1, 2, 3, 4, 5"):
        corrupt(images, "fog", 6, SEEDS)
    for wrong in (images.float(), images[0], images[:, :1], images[..., :31]):
        with pytest.raises(ValueError, match=r"give torch\.uint8"):
            corrupt(wrong, "fog", 1, SEEDS)
    for seeds in (SEEDS.int(), SEEDS[:3]):
        with pytest.raises(ValueError, match="one an image"):
            corrupt(images, "fog", 1, seeds)
