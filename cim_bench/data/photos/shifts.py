"""Three shifted versions of the demo's held-out photographs: stand-ins for ImageNet-A, -R and -Sketch.

``photos-a``: natural variation: each validation crop seen closer, tilted and in another light. ``photos-r``: a
rendition: flat patches of few, strong colours, as of a print. ``photos-sketch``: a pencil sketch. They are made
from ``photos``' validation crops by the image processing below, so they say how a demo's numbers move, and
nothing about ImageNet's sets. docs/protocols/shifts.md defines them in words.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageMath, ImageOps

from cim_bench.data.photos.crops import intact, photos, put_in_place, write_manifest

SHIFTS_VERSION = 1  # raise it whenever other pixels come out
WINDOW = (0.55, 0.78)  # side of what photos-a keeps, as a share of the crop's
TILT = 15.0  # degrees, to either side
LIGHT = (0.6, 1.7)  # exponent of photos-a's tone curve
BITS = 3  # a channel, of photos-r
STRENGTH = 1.6  # of photos-r's colours
PENCIL = 3.0  # pixels, standard deviation of photos-sketch's blur


def variation(image: Image.Image, draw: random.Random) -> Image.Image:
    """Closer, tilted, in another light."""
    size = image.size
    tilted = image.rotate(draw.uniform(-TILT, TILT), Image.Resampling.BICUBIC)
    side = round(size[0] * draw.uniform(*WINDOW))
    # A square tilted by 15 degrees holds an upright one of 1 / (cos 15 + sin 15) = 1 / 1.225 of its side: a window
    # within that, and two pixels of bicubic filter, shows no filled corner.
    slack = max(0.0, (size[0] / 1.225 - 2 - side) / 2)
    left = round((size[0] - side) / 2 + draw.uniform(-slack, slack))
    top = round((size[1] - side) / 2 + draw.uniform(-slack, slack))
    window = tilted.crop((left, top, left + side, top + side)).resize(size, Image.Resampling.BICUBIC)
    exponent = draw.uniform(*LIGHT)
    return window.point([round(255 * (level / 255) ** exponent) for level in range(256)] * 3)


def rendition(image: Image.Image, _draw: random.Random) -> Image.Image:
    """Flat patches of few, strong colours."""
    flat = ImageOps.posterize(image.filter(ImageFilter.MedianFilter(5)), BITS)
    return ImageEnhance.Color(flat).enhance(STRENGTH)


def sketch(image: Image.Image, _draw: random.Random) -> Image.Image:
    """Grey divided by its own blur: dark lines at edges on white, as a soft pencil leaves them."""
    grey = image.convert("L")
    blurred = ImageChops.lighter(grey.filter(ImageFilter.GaussianBlur(PENCIL)), Image.new("L", grey.size, 1))
    lines = ImageMath.lambda_eval(lambda a: a["min"](a["g"] * 255 / a["b"], 255), g=grey, b=blurred)
    made: Image.Image = lines.convert("L").convert("RGB")
    return made


PHOTO_SHIFTS: Mapping[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "photos-a": variation,
    "photos-r": rendition,
    "photos-sketch": sketch,
}


def photo_shift(name: str, root: Path | None = None) -> Path:
    """The image folder of one shift, ``CLASS/NNN.png``, made at the first call and found again by later ones.

    Args:
        name: A key of `PHOTO_SHIFTS`.
        root: The folder to keep it in; the cache unless given.

    Raises:
        ValueError: For an unknown name, or if the photographs are not installed.
        OSError: If the folder cannot be written.
    """
    if name not in PHOTO_SHIFTS:
        raise ValueError(f"no shifted photographs are called {name!r}; choose one of {', '.join(PHOTO_SHIFTS)}")
    source = photos(root)
    folder = source.parent / f"{name}-{SHIFTS_VERSION}-{source.name.removeprefix('photos-')}"
    recipe = {
        "constants": [SHIFTS_VERSION, WINDOW, TILT, LIGHT, BITS, STRENGTH, PENCIL],
        "source": source.name,
        "name": name,
    }
    if not intact(folder, recipe):
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as scratch:
            new = Path(scratch, "new")
            rows = [_one(file, source / "val", new, name) for file in sorted((source / "val").rglob("*.png"))]
            write_manifest(new, recipe, rows)
            put_in_place(new, folder, recipe)
    return folder


def _one(file: Path, source: Path, target: Path, name: str) -> dict[str, Any]:
    """Make one image; returns its row of the manifest."""
    place = file.relative_to(source)
    draw = random.Random(f"{name}/{place.as_posix()}")
    path = target / place
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(file) as image:
        PHOTO_SHIFTS[name](image.convert("RGB"), draw).save(path)
    return {"path": place.as_posix(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
