"""Time of an image's confusion matrix against a bare count of its pixels: ``python benchmarks/confusion.py``.

The bare ``torch.bincount`` is given one 64-bit index a pixel, made before the clock starts; ours starts from the mask
and the predicted classes. Beside them, the usual way: labelled pixels sorted out, indices made in 64 bits. Images of
ADE20K's usual size with 150 classes in blocks, 5 % without a label; or real masks: ``--masks FOLDER`` (0 unlabelled,
classes from 1), of which each is compared with itself, moved by five pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timing import header, interleaved, machine, median, ratio, row
from torch import Tensor

from cim_bench.evals.metrics import confusion_matrix

Pair = tuple[Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, default=None, help="folder of PNG masks (default: made ones)")
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--count", type=int, default=20, help="images (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    classes = options.classes
    pairs = read_pairs(options.masks, options.count, classes) if options.masks else made_pairs(options.count, classes)
    wide = [(truth, predicted.long()) for truth, predicted in pairs]
    cells = [(truth.long() * classes + predicted).flatten() for truth, predicted in wide]
    seconds = interleaved(
        {
            "a bare bincount": lambda: [torch.bincount(index, minlength=256 * classes) for index in cells],
            "ours, 8-bit predictions": lambda: [confusion_matrix(*pair, classes) for pair in pairs],
            "ours, 64-bit predictions": lambda: [confusion_matrix(*pair, classes) for pair in wide],
            "labelled pixels sorted out": lambda: [sorted_out(*pair, classes) for pair in wide],
        },
        options.repeats,
        clock=options.clock,
    )
    print(machine())
    print(header("Confusion matrix", f"ms an image, {options.clock} time", "Times bare"))
    bare = next(iter(seconds.values()))
    for name, found in seconds.items():
        middle, low, high = ratio(found, bare)
        print(row(name, 1000 * median(found) / len(pairs), f"{middle:.2f} ({low:.2f} to {high:.2f})"))


def sorted_out(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """The usual way, written plainly."""
    labelled = truth != 255
    cells = truth[labelled].long() * classes + predicted[labelled]
    return torch.bincount(cells, minlength=classes**2).view(classes, classes)


def made_pairs(count: int, classes: int) -> Sequence[Pair]:
    """Masks of blocks, and predictions of which six in ten are right."""
    draw, shape, pairs = torch.Generator().manual_seed(0), (512, 683), []
    for _ in range(count):
        blocks = torch.randint(0, classes, (1, 1, 12, 16), generator=draw).float()
        truth = F.interpolate(blocks, shape)[0, 0].to(torch.uint8)
        other = torch.randint(0, classes, shape, dtype=torch.uint8, generator=draw)
        predicted = torch.where(torch.rand(shape, generator=draw) < 0.6, truth, other)
        truth[torch.rand(shape, generator=draw) < 0.05] = 255
        pairs.append((truth, predicted))
    return pairs


def read_pairs(folder: Path, count: int, classes: int) -> Sequence[Pair]:
    """Masks of a folder, each with itself moved by five pixels."""
    masks = [torch.from_numpy(np.array(Image.open(file))) - 1 for file in sorted(folder.glob("*.png"))[:count]]
    return [(mask, mask.roll(5, dims=1).clamp(max=classes - 1)) for mask in masks]


if __name__ == "__main__":
    main()
