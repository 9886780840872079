"""From a decoded file of any kind to 8 bits of red, green and blue, with nothing but Pillow."""

from __future__ import annotations

from PIL import Image

_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose grey of mode "I" has 16 bits; elsewhere that mode has 32


def to_rgb(image: Image.Image) -> Image.Image:
    """The first frame as RGB.

    Transparency is dropped and orientation in EXIF is ignored, as torchvision's ``ImageFolder`` does. Grey of 16 bits
    keeps its range: 0 to 65535 becomes 0 to 255, where Pillow would turn all above 255 white.

    Raises:
        ValueError: If pixels are numbers whose range nobody can tell: floats, or integers of 32 bits.
        OSError: If the file is damaged; or another error of `cim_bench.common.errors.UNREADABLE`.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L").convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers of 32 bits" if image.mode == "I" else "floats"
        raise ValueError(f"its pixels are {kind}, whose range is not known; store 8 or 16 bits a channel")
    if image.mode == "P":  # by way of RGBA, or Pillow warns of a palette with transparency; the colours are the same
        image = image.convert("RGBA")
    return image.convert("RGB")
