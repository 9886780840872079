"""Frost: the published definition on photographs of a folder, where they come from, and the texture that stands in."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cim_bench.evals.corruptions import weather
from cim_bench.evals.corruptions.generate import SEVERITIES, corrupt, frost_source

WEIGHTS = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))


@pytest.fixture
def folder(tmp_path: Path, photos_root: Path) -> Path:
    """Five real photographs of different sizes under the published names, and the sixth, which is never used."""
    home = tmp_path / "frost"
    home.mkdir()
    crops = sorted((photos_root / "val" / "chelsea").iterdir())
    for number, name in enumerate((*weather.FROST_FILES, "frost6.jpg")):
        with Image.open(crops[number]) as crop:
            crop.resize((150 + 10 * number, 120 + 7 * number)).save(home / name, quality=95)
    return home


@pytest.fixture(autouse=True)
def _no_frost_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' result is the same where the photographs are installed."""
    monkeypatch.delenv(weather.FROST_VARIABLE, raising=False)
    monkeypatch.setattr(weather, "FROST_PACKAGE", "cim_bench_no_such_package")


@pytest.fixture
def image(photos_root: Path) -> torch.Tensor:
    array = np.asarray(Image.open(photos_root / "val" / "coffee" / "000.png"))
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_weighted_sum_with_a_part_of_a_photograph(
    image: torch.Tensor, folder: Path, monkeypatch: pytest.MonkeyPatch, severity: int
) -> None:
    monkeypatch.setenv(weather.FROST_VARIABLE, str(folder))
    assert frost_source() == "published"
    for which, down, right in ((0.0, 0.0, 0.0), (0.5, 0.3, 0.9), (0.999, 0.999, 0.999)):
        name = weather.FROST_FILES[int(5 * which)]
        with Image.open(folder / name) as file:
            photograph = np.asarray(file.convert("RGB"), dtype=float)
        top, left = int(down * (photograph.shape[0] - 64)), int(right * (photograph.shape[1] - 64))
        strength, cover = WEIGHTS[severity - 1]
        part = photograph[top : top + 64, left : left + 64]
        published = np.uint8(np.clip(strength * image[0].permute(1, 2, 0).numpy() + cover * part, 0, 255))
        ours = weather.frost(image, severity, torch.tensor([[which, down, right]]))[0].permute(1, 2, 0).numpy()
        assert np.abs(ours.astype(int) - published).max() <= 1


def test_photographs_are_enlarged_where_the_image_is_larger(folder: Path) -> None:
    for photograph in weather.frost_photographs(folder, 64, 64):
        assert photograph.shape[1] < 160
    for photograph in weather.frost_photographs(folder, 224, 224):
        assert min(photograph.shape[1:]) > 224


def test_a_folder_that_lacks_one_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "frost3.png").unlink()
    monkeypatch.setenv(weather.FROST_VARIABLE, str(folder))
    with pytest.raises(ValueError, match=r"has no frost3\.png"):
        frost_source()


def test_an_installed_package_is_found_and_not_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "frost_shipper"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it needs OpenCV')")
    assert frost_source() == "procedural"
    folder.rename(package / "frost")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(weather, "FROST_PACKAGE", "frost_shipper")
    assert frost_source() == "published"
    assert "frost_shipper" not in sys.modules


def test_textures_have_the_photographs_colour_and_contrast_and_differ() -> None:
    assert frost_source() == "procedural"
    textures = [weather.frost_texture(index).float() for index in range(5)]
    for texture in textures:
        assert texture.shape == (3, *weather.TEXTURE_SIZE)
        assert texture.mean((1, 2)).tolist() == pytest.approx(weather.FROST_MEAN, abs=3)
        assert texture.std((1, 2)).tolist() == pytest.approx(weather.FROST_STD, abs=3)
    assert all(not a.equal(b) for i, a in enumerate(textures) for b in textures[:i])


def test_the_texture_stands_in(image: torch.Tensor) -> None:
    frosted = corrupt(image, "frost", 3, torch.tensor([7]))
    assert frosted.float().mean() > image.float().mean()
