"""Every kind of file becomes the RGB that its pixels mean."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cim_bench.data.images import ImageError, ImageSet
from cim_bench.data.pixels import to_rgb
from cim_bench.spec import Data

RAMP = np.arange(0, 65536, 11, dtype=np.uint16)[:5952].reshape(64, 93)


def stored(image: Image.Image, kind: str, **options: object) -> Image.Image:
    """As a file of a kind is opened."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


@pytest.fixture
def photo(small_photos: Data) -> Image.Image:
    return ImageSet(small_photos, "val").read(0)[0]


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_sixteen_bits_keep_their_range(kind: str) -> None:
    if kind == "ppm":  # Pillow 10.3 reads such files and does not write them
        image = Image.open(io.BytesIO(b"P5 93 64 65535\n" + RAMP.astype(">u2").tobytes()))
    else:
        image = stored(Image.fromarray(RAMP), kind)
    found = np.asarray(to_rgb(image))
    assert found.shape == (64, 93, 3)
    assert (found == np.rint(RAMP / 257)[..., None]).all()


def test_sixteen_bits_of_a_photograph_are_its_eight(photo: Image.Image) -> None:
    grey = photo.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert to_rgb(stored(deep, "png")).tobytes() == grey.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_known_range_are_refused_by_name(own_photos: Data, mode: str) -> None:
    Image.new(mode, (64, 64)).save(Path(own_photos.root, "val", "coffee", "a.tiff"))
    images = ImageSet(own_photos, "val")
    place = next(i for i in range(len(images)) if images.image_id(i) == "coffee/a.tiff")
    with pytest.raises(ImageError, match=r"cannot read image coffee/a\.tiff .*: its pixels are .* not known; store 8"):
        images.read(place)


def test_a_palette_with_transparency_keeps_its_colours_and_warns_nobody(photo: Image.Image) -> None:
    palette = photo.quantize(64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = to_rgb(stored(palette, "png", transparency=bytes(range(64))))
    assert found.tobytes() == palette.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "PA", "YCbCr", "CMYK"])
def test_other_modes_stay_near_the_photograph(photo: Image.Image, mode: str) -> None:
    grey = mode in ("1", "L", "LA")
    source = photo.quantize(256).convert("PA") if mode == "PA" else photo.convert(mode)
    expected = np.asarray((photo.convert("L") if grey else photo).convert("RGB")).astype(float)
    found = to_rgb(source)
    assert (found.mode, found.size) == ("RGB", photo.size)
    assert abs(np.asarray(found).mean() - expected.mean()) < 4


@pytest.mark.parametrize("kind", ["gif", "png", "tiff"])
def test_of_several_frames_the_first_is_read(photo: Image.Image, kind: str) -> None:
    found = to_rgb(stored(photo, kind, save_all=True, append_images=[Image.new("RGB", photo.size)]))
    assert abs(np.asarray(found).astype(float) - np.asarray(photo)).mean() < 15


def test_orientation_in_exif_is_ignored_as_torchvision_does(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    wide = photo.resize((64, 32))
    assert to_rgb(stored(wide, "png", exif=exif)).tobytes() == wide.tobytes()
