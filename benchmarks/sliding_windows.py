"""Images a second of sliding-window tests against a plain loop: ``python benchmarks/sliding_windows.py FOLDER``.

FOLDER is a segmentation set in ADE20K's layout. The plain loop does as mmseg's ``slide_inference``: one window at a
time, logits padded to the whole image, summed and divided. Both give the same classes; decoding is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import CLOCKS, header, interleaved, machine, median, ratio, row
from torch import Tensor, nn

from cim_bench.data.segmentation import SegmentationSet
from cim_bench.data.transforms import to_uint8
from cim_bench.evals.segmentation.scoring import Scorer
from cim_bench.evals.segmentation.transforms import resize_to_bound
from cim_bench.evals.segmentation.upernet import SegmentationUPerNet
from cim_bench.models.backbone import Backbone
from cim_bench.spec import Arch, Data, SlidingTest

Sample = tuple[int, Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images/ and annotations/ with validation/")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--classes", type=int, default=150, help="logits of the network; ADE20K has 150")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--stride", type=int, default=341)
    parser.add_argument("--width", type=int, default=192, help="of the ViT")
    parser.add_argument("--channels", type=int, default=64, help="of UPerNet")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    test = SlidingTest(scale=(4 * options.crop, options.crop), crop=options.crop, strides=(options.stride,))
    arch = Arch(name="vit_tiny_patch16_224", options={"embed_dim": options.width, "num_heads": 3})
    recipe = replace(SegmentationUPerNet(), test=test, channels=options.channels)
    network = recipe.network(Backbone(arch), options.classes).eval()
    images = SegmentationSet(Data(name="masks", root=str(options.folder)), "val").take(range(options.images))
    samples = list(read(images, test))
    mean = network.backbone.mean
    scorer = Scorer(network, classes=options.classes, mean=mean, patch=16, test=test, images=images)
    found: dict[str, list[Tensor]] = {"loop": [], "batched": []}

    def batched() -> None:
        found["batched"] = []
        for _ in scorer.run(iter(samples), lambda _, answer: found["batched"].append(answer)):
            pass

    def loop() -> None:
        found["loop"] = [slide_inference(network, pixels, mask, test) for _, pixels, mask in samples]

    with torch.no_grad():
        seconds = interleaved({"loop": loop, "batched": batched}, options.repeats, clock=options.clock)
    alike = sum(int((a == b).sum()) for a, b in zip(found["loop"], found["batched"], strict=True))
    pixels = sum(answer.numel() for answer in found["loop"])
    print(machine(), "\n")
    print(header("Way", "Images a second", "Times the loop"))
    print(row("plain loop", options.images / median(seconds["loop"]), 1.0))
    middle, low, high = ratio(seconds["loop"], seconds["batched"])
    print(row("batched", options.images / median(seconds["batched"]), f"{middle:.2f} ({low:.2f} to {high:.2f})"))
    print(f"\n{alike / pixels:.6%} of the pixels have the same class")


def read(images: SegmentationSet, test: SlidingTest) -> Iterator[Sample]:
    for index in range(len(images)):
        image, mask = images.read(index)
        yield index, resize_to_bound(to_uint8(image), test.scale), mask


def slide_inference(network: nn.Module, pixels: Tensor, mask: Tensor, test: SlidingTest) -> Tensor:
    """Classes (H, W) of one image (3, h, w) uint8, as mmseg's loop computes them."""
    image = pixels.float()[None] / 255
    crop, stride, (h, w) = test.crop, test.strides[0], image.shape[2:]
    resize = partial(F.interpolate, mode="bilinear", align_corners=False)
    total, count = None, image.new_zeros(1, 1, h, w)
    for row_ in range(max(h - crop + stride - 1, 0) // stride + 1):
        for column in range(max(w - crop + stride - 1, 0) // stride + 1):
            y2, x2 = min(row_ * stride + crop, h), min(column * stride + crop, w)
            y1, x1 = max(y2 - crop, 0), max(x2 - crop, 0)
            logits = resize(network(image[:, :, y1:y2, x1:x2]), size=(y2 - y1, x2 - x1))
            padded = F.pad(logits, (x1, w - x2, y1, h - y2))
            total = padded if total is None else total + padded
            count[:, :, y1:y2, x1:x2] += 1
    assert total is not None
    return resize(total / count, size=mask.shape).softmax(dim=1).argmax(dim=1)[0]


if __name__ == "__main__":
    main()
