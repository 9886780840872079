"""A small segmentation set with exact masks: mosaics of real photographs, for the demo (root ``photos-seg``).

Each image is a plane that curved lines cut into five cells; each cell shows a piece of another one of eight photographs
and scans, and the mask says which, pixel by pixel. Pieces of training and validation images come from the two sides
of a line across each photograph, as the crops of ``photos`` do. The pixels are real, the scenes are not: a score on
them says whether features tell textures apart and where one ends, and compares with no published one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cim_bench.data.photos.crops import TRAIN_SHARE, build, intact, named_folder, photo_files, split_region

MOSAICS_VERSION = 1  # of the recipe: raise it whenever other images would come out
SOURCES = {  # class: photograph
    "bricks": "brick",
    "coins": "coins",
    "grass": "grass",
    "gravel": "gravel",
    "moon": "moon",
    "print": "page",
    "stars": "hubble_deep_field",
    "tissue": "ihc",
}
SIZE = 144  # of an image, pixels
FOLDERS = {"train": "training", "val": "validation"}
COUNTS = {"train": 48, "val": 32}
CELLS = 5  # an image, each of another class
BEND = (6.0, 12.0)  # range of how far the borders swing, pixels
WAVE = (60.0, 120.0)  # range of the length of a swing, pixels
ZOOM = (1.0, 1.5)  # range of pixels of the photograph for a pixel of the image
NEAREST_SITES = 45.0  # pixels between the centres of two cells, at least


def photo_mosaics(root: Path | None = None) -> Path:
    """The folder of mosaics in ADE20K's layout, made at the first call and found again by later ones.

    Args:
        root: The folder to keep it in; the cache unless given.

    Returns:
        ``<root>/photos-seg-<hash>``: ``images`` and ``annotations``, each with ``training`` and ``validation``,
        ``classes.txt``, and ``manifest.json``, which has the rectangle that each cell was cut from.

    Raises:
        ValueError: If scikit-image or scikit-learn is not installed.
        OSError: If the folder cannot be written.
    """
    files = photo_files()
    files = {name: files[photo] for name, photo in SOURCES.items()}
    recipe = {
        "constants": [MOSAICS_VERSION, SIZE, COUNTS, CELLS, BEND, WAVE, ZOOM, NEAREST_SITES, TRAIN_SHARE],
        "sources": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
    }
    folder = named_folder("photos-seg", recipe, root)
    if not intact(folder, recipe):
        build(folder, recipe, lambda new: _write(new, files))
    return folder


def draw_cells(generator: np.random.Generator) -> np.ndarray:
    """A plane that is cut into cells: (SIZE, SIZE) integers from 0 to CELLS - 1.

    A pixel belongs to the nearest of `CELLS` sites (a Voronoi diagram), after the plane was bent by two sine waves.
    """
    sites = [generator.uniform(0, SIZE, 2)]
    while len(sites) < CELLS:
        site = generator.uniform(0, SIZE, 2)
        if min(np.hypot(*(site - other)) for other in sites) >= NEAREST_SITES:
            sites.append(site)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(float)
    bend, wave, phase = generator.uniform(*BEND, 2), generator.uniform(*WAVE, 2), generator.uniform(0, 2 * np.pi, 2)
    bent = (
        rows + bend[0] * np.sin(2 * np.pi * columns / wave[0] + phase[0]),
        columns + bend[1] * np.sin(2 * np.pi * rows / wave[1] + phase[1]),
    )
    distances = [np.hypot(bent[0] - site[0], bent[1] - site[1]) for site in sites]
    nearest: np.ndarray = np.argmin(distances, axis=0)
    return nearest


def _write(root: Path, files: dict[str, Path]) -> list[dict[str, Any]]:
    """Writes all images below `root`, and returns their rows of the manifest."""
    photos = {name: Image.open(path).convert("RGB") for name, path in files.items()}
    rows = [row for split in FOLDERS for row in _split(root, split, photos)]
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in SOURCES), encoding="utf-8")
    return rows


def _split(root: Path, split: str, photos: dict[str, Image.Image]) -> list[dict[str, Any]]:
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(f"mosaics/{split}".encode()).digest()))
    places = [f"{top}/{FOLDERS[split]}" for top in ("images", "annotations")]
    for place in places:
        (root / place).mkdir(parents=True)
    names, rows = list(photos), []
    used = np.zeros(len(names), dtype=int)
    for index in range(COUNTS[split]):
        chosen = np.lexsort([generator.random(len(names)), used])[:CELLS]  # those that were used least
        used[chosen] += 1
        cells = draw_cells(generator)
        image, pieces = Image.new("RGB", (SIZE, SIZE)), []
        for cell, label in enumerate(chosen):
            pieces.append(_fill(image, cells == cell, split, names[label], photos[names[label]], generator))
        files = {f"{places[0]}/{index:03d}.png": image, f"{places[1]}/{index:03d}.png": _annotation(cells, chosen)}
        for path, content in files.items():
            content.save(root / path)
            digest = hashlib.sha256((root / path).read_bytes()).hexdigest()
            rows.append({"path": path, "split": split, "sha256": digest, "pieces": pieces})
    return rows


def _annotation(cells: np.ndarray, chosen: np.ndarray) -> Image.Image:
    """One label a pixel: 1 for the first class, as in ADE20K's files."""
    return Image.fromarray((chosen[cells] + 1).astype(np.uint8))


def _fill(
    image: Image.Image, cell: np.ndarray, split: str, name: str, photo: Image.Image, generator: np.random.Generator
) -> dict[str, Any]:
    """Show a piece of a photograph in one cell; returns what piece it is."""
    mask = Image.fromarray(cell)
    box = mask.getbbox()
    assert box is not None, "bent out of the image: draw its cells anew"
    left, top, right, bottom = split_region(split, SOURCES[name], photo.size)
    length = max(box[2] - box[0], box[3] - box[1])
    side = min(round(length * generator.uniform(*ZOOM)), right - left, bottom - top)
    left += int(generator.integers(right - left - side, endpoint=True))
    top += int(generator.integers(bottom - top - side, endpoint=True))
    # cropped first: resize(box=...) would let its filter look over the border, into the other split
    piece = photo.crop((left, top, left + side, top + side)).resize((length, length), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", image.size)
    sheet.paste(piece, box[:2])
    image.paste(sheet, mask=mask)
    return {"class": name, "left": left, "top": top, "side": side}
