"""A small set of real photographs, cut from those that scikit-image and scikit-learn ship in their wheels.

Each photograph or scan is a class and each image a 64x64 crop of it, training and validation crops from the
two sides of a line across it: real pixels without a download. It is NOT ImageNet, nor a sample of it, and a
score on it compares with no published one: a class is one picture.

Sources: ``skimage.data`` (most public domain, CC0 or without known restrictions, as its docstrings say:
NASA's astronaut and Hubble field, SpaceX's rocket, the Brooklyn Museum's coins, L. Varshney's camera, S. van
der Walt's chelsea, R. Michetti's coffee, ...; the motorcycle is of D. Scharstein et al.'s Middlebury 2014
stereo set) and ``sklearn.datasets`` (china by danielbuechele, flower by vultilion, on Flickr under CC BY
2.0). The crops, scaled and in RGB, are made on the user's machine: cim-bench redistributes none.
"""

import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

# Left out: drawings, test charts, and cell and clock_motion, blank but for one spot in the training part.
_SKIMAGE = (
    "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png "
    "hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png page.png retina.jpg rocket.jpg text.png"
)
_FOLDERS = {"skimage": ("data", _SKIMAGE), "sklearn": ("datasets/images", "china.jpg flower.jpg")}
PHOTO_CLASSES = tuple(sorted(Path(file).stem for _, files in _FOLDERS.values() for file in files.split()))
# Photographs of things, in which a part has one place: not of textures, stars, tissue or lines of print.
THINGS = ("astronaut", "camera", "chelsea", "china", "coffee", "coins", "flower", "motorcycle_left", "rocket")
CROPS_VERSION = 1  # of the recipe: raise it whenever other crops would come out
TRAIN_SHARE = (2, 3)  # of the photograph's longer axis, from the left or the top; the rest is for validation
TOP_DOWN = ("astronaut", "camera", "flower", "moon")  # split along the height: little in their right third
DRAWS_PER_CROP = 3  # places drawn for a crop, of which the one of greatest contrast is taken: fewer blank skies


@dataclass(frozen=True)
class Crops:
    """One set of crops.

    Attributes:
        size: Of a crop, pixels.
        sides: Least and greatest side of the square cut from the photograph, pixels.
        counts: Crops per class, by split.
        classes: The photographs.
    """

    size: int
    sides: tuple[int, int]
    counts: Mapping[str, int]
    classes: tuple[str, ...]


CROPS: Mapping[str, Crops] = {
    "photos": Crops(64, (64, 128), {"train": 100, "val": 25}, PHOTO_CLASSES),
    # For pre-training: wider crops, which show things and not their surface.
    "photos-things": Crops(64, (96, 256), {"train": 200, "val": 25}, THINGS),
}


def cache_folder() -> Path:
    """$CIM_BENCH_CACHE, else $XDG_CACHE_HOME/cim-bench, else ~/.cache/cim-bench; not made by this call."""
    if own := os.environ.get("CIM_BENCH_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cim-bench"


def photos(root: Path | None = None, name: str = "photos") -> Path:
    """The ImageFolder of photographs, made at the first call and found again by later ones.

    Args:
        root: The folder to keep it in, ``cache_folder()`` unless given.
        name: A key of `CROPS`.

    Returns:
        ``<root>/<name>-<hash of the sources and the recipe>``, which holds ``train/<class>/NNN.png``,
        ``val/<class>/NNN.png`` and ``manifest.json``: hash, class, split and source rectangle of every file.

    Raises:
        ValueError: scikit-image or scikit-learn, or one of their photographs, is not installed.
        OSError: The folder cannot be written.
    """
    crops = CROPS[name]
    sources = {label: path for label, path in photo_files().items() if label in crops.classes}
    constants = [CROPS_VERSION, crops.size, crops.sides, crops.counts, TRAIN_SHARE, TOP_DOWN, DRAWS_PER_CROP]
    recipe = {
        "constants": constants,
        "sources": {label: hashlib.sha256(path.read_bytes()).hexdigest() for label, path in sources.items()},
    }
    folder = named_folder(name, recipe, root)
    if not intact(folder, recipe):
        build(folder, recipe, lambda new: _all_crops(new, crops, sources))
    return folder


def photo_files() -> dict[str, Path]:
    """The file of each photograph; finds the packages without importing them, which takes seconds.

    Raises:
        ValueError: If one is not installed.
    """
    found = {}
    for package, (subfolder, files) in _FOLDERS.items():
        spec = importlib.util.find_spec(package)
        home = Path(spec.origin if spec and spec.origin else "/missing").parent
        for path in (home / subfolder / file for file in files.split()):
            if not path.is_file():
                raise ValueError(f"photos() needs {package}'s {path.name}: pip install 'cim-bench[photos]'")
            found[path.stem] = path
    return dict(sorted(found.items()))


def named_folder(name: str, recipe: dict[str, Any], root: Path | None) -> Path:
    """``<root>/<name>-<hash of the recipe>``, in the cache unless a root is given."""
    return (cache_folder() if root is None else Path(root)) / f"{name}-{_digest(recipe)[:12]}"


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def intact(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether the folder's manifest is whole and of this recipe, and every file it lists is there."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        whole = manifest.pop("sha256") == _digest(manifest) and _digest(manifest["recipe"]) == _digest(recipe)
        return whole and all(os.access(f"{folder}/{row['path']}", os.R_OK) for row in manifest["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def build(folder: Path, recipe: dict[str, Any], write: Callable[[Path], list[dict[str, Any]]]) -> None:
    """Make a set in a temporary sibling of `folder`, and put it in its place by a rename.

    Args:
        folder: The final name.
        recipe: What `intact` compares.
        write: Writes the files below a folder that is not there yet, and returns their rows of the manifest.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".photos-", dir=folder.parent) as scratch:
            new = Path(scratch, "new")
            write_manifest(new, recipe, write(new))
            put_in_place(new, folder, recipe)
    except OSError as error:
        if not intact(folder, recipe):
            reason = f"The photographs cannot be written to {folder.parent} ({error.strerror or error})"
            raise OSError(f"{reason}: set CIM_BENCH_CACHE to a folder that can be written.") from error


def put_in_place(new: Path, folder: Path, recipe: dict[str, Any]) -> None:
    """Rename a folder that has just been made to its final name; one that another process made first stays.

    Args:
        new: In a temporary folder beside `folder`.
        folder: The final name; what is there and is not intact is moved beside `new`.
        recipe: What `intact` compares.
    """
    try:
        new.rename(folder)  # at once: a look first would leave time for another process between the two
    except OSError:
        if intact(folder, recipe):
            return
        if not folder.exists():
            raise
        folder.rename(new.with_name("damaged"))
        new.rename(folder)


def write_manifest(folder: Path, recipe: dict[str, Any], files: list[dict[str, Any]]) -> None:
    """Write ``manifest.json``: the recipe, Pillow's version, and path and hash of every file."""
    manifest = {"recipe": recipe, "pillow": PIL.__version__, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": _digest(manifest)}, indent=1))


def _all_crops(root: Path, crops: Crops, sources: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Writes all crops below `root`, and returns their rows of the manifest."""
    images = {name: Image.open(path).convert("RGB") for name, path in sources.items()}
    return [*chain(*(_cut(root, crops, split, *image) for split in crops.counts for image in images.items()))]


def _cut(root: Path, crops: Crops, split: str, name: str, image: Image.Image) -> list[dict[str, Any]]:
    """Writes the crops of one class and split below `root`, and returns their rows of the manifest."""
    region = split_region(split, name, image.size)
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{split}/{name}".encode()).digest()))
    grey = np.asarray(image.convert("L"))
    rows = []
    (root / split / name).mkdir(parents=True)
    for index in range(crops.counts[split]):
        drawn = (_draw(grey, region, crops.sides, generator) for _ in range(DRAWS_PER_CROP))
        _, left, top, side = max(drawn)
        # Cropped first: resize(box=...) would let its filter look over the border, into the other split.
        crop = image.crop((left, top, left + side, top + side))
        path = root / split / name / f"{index:03d}.png"
        crop.resize((crops.size, crops.size), Image.Resampling.LANCZOS).save(path)
        row = {"path": path.relative_to(root).as_posix(), "class": name, "split": split}
        row["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append({**row, "left": left, "top": top, "side": side})
    return rows


def split_region(split: str, name: str, size: tuple[int, int]) -> list[int]:
    """The part of a photograph (left, top, right, bottom) that ``train`` or ``val`` images are cut from.

    Args:
        split: ``train`` or ``val``; their parts do not overlap.
        name: Of the photograph.
        size: Its width and height.
    """
    region = [0, 0, *size]
    axis = 1 if name in TOP_DOWN or size[1] > size[0] else 0
    region[axis + 2 if split == "train" else axis] = size[axis] * TRAIN_SHARE[0] // TRAIN_SHARE[1]
    return region


def _draw(
    grey: Any, region: list[int], sides: tuple[int, int], generator: np.random.Generator
) -> tuple[float, int, int, int]:
    """A random square within the region (left, top, right, bottom): its contrast, left, top and side."""
    width, height = region[2] - region[0], region[3] - region[1]
    side = int(generator.integers(sides[0], min(sides[1], width, height), endpoint=True))
    left = region[0] + int(generator.integers(width - side, endpoint=True))
    top = region[1] + int(generator.integers(height - side, endpoint=True))
    return float(grey[top : top + side, left : left + side].std()), left, top, side
