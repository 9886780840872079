"""CIM's inputs on one core, in images a second: ours, and the public data set's where a checkout is named.

    python benchmarks/cim_inputs.py --images IMAGES --public PUBLIC

IMAGES is an ImageFolder tree (without it: the demo's photographs); PUBLIC a checkout of
weivision/Correlational-Image-Modeling, imported at run time and at the published ViT settings. Every figure
includes opening and decoding the file; "cut by the device" is what is left for a loader worker then.
"""

from __future__ import annotations

import argparse
import importlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timing import CLOCKS, Task, header, interleaved, machine, median, public_code, ratio, row
from torchvision import transforms
from torchvision.datasets import ImageFolder

from cim_bench.data.photos.crops import photos
from cim_bench.data.transforms import to_uint8
from cim_bench.pretrain.cim.method import CIM
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, Arch

SETTINGS, SIDE = CIM(), Arch().image_size  # the published ViT settings
PUBLIC = "public"


def decode(path: str) -> Image.Image:
    return Image.open(path).convert("RGB")


def base_view(image: Image.Image) -> torch.Tensor:
    """Random resized crop and flip alone: the part that no method can do without."""
    top, left, height, width = transforms.RandomResizedCrop.get_params(image, list(SETTINGS.base_scale), [3 / 4, 4 / 3])
    box = (left, top, left + width, top + height)
    view = to_uint8(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))
    return view.flip(-1) if torch.rand(()) < 0.5 else view


def public_dataset(root: Path, checkout: Path) -> Any:
    """The public data set with the transforms that its training script builds for ViT pre-training."""
    public_code(checkout)
    code = importlib.import_module("util.datasets")
    jitter = transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8)
    blur = transforms.RandomApply([code.GaussianBlur([0.1, 2.0])], p=0.5)
    solarize = transforms.RandomApply([code.Solarization()], p=0.2)
    bicubic = transforms.InterpolationMode.BICUBIC
    crop = transforms.RandomResizedCrop(SIDE, scale=SETTINGS.base_scale, interpolation=bicubic)
    tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    steps = {
        "search": transforms.Compose([crop, transforms.RandomHorizontalFlip()]),
        "common": transforms.Compose([jitter, transforms.RandomGrayscale(p=0.2), blur, solarize]),
        "template": transforms.RandomHorizontalFlip(),
        "post_context": tensor,
        "post_template": tensor,
    }
    return code.CorrlationDataset(
        str(root),
        search_size=SIDE,
        context_size=SETTINGS.context_size,
        template_size=SETTINGS.exemplar_size,
        template_num=SETTINGS.num_exemplars,
        scale=SETTINGS.region_scale,
        ratio=SETTINGS.region_ratio,
        degree=SETTINGS.max_degrees,
        transform=steps,
    )


def tasks(images: Path, checkout: Path | None, count: int) -> dict[str, Task]:
    """What is timed: each makes the inputs of the same `count` images, spread evenly over the folder."""
    paths = [path for path, _ in ImageFolder(images).samples]
    chosen = [i * len(paths) // count for i in range(count)]
    worker, device = (CIM(cut_on=place).inputs(Arch()) for place in ("worker", "device"))

    def over(make: Callable[[int], object]) -> Task:
        return lambda: [make(index) for index in chosen]

    made = {
        "decoding alone": over(lambda i: decode(paths[i])),
        "decoding and base view": over(lambda i: base_view(decode(paths[i]))),
        "ours, cut by the worker": over(lambda i: worker(decode(paths[i]))),
        "ours, cut by the device": over(lambda i: device(decode(paths[i]))),
    }
    if checkout:
        made[PUBLIC] = over(public_dataset(images, checkout).__getitem__)
    return made


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="ImageFolder tree; default: the demo's photographs")
    parser.add_argument("--public", type=Path, help="checkout of weivision/Correlational-Image-Modeling")
    parser.add_argument("--count", type=int, default=64, help="images a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    torch.set_num_threads(1)
    random.seed(0)
    torch.manual_seed(0)
    images = chosen.images or photos() / "train"
    seconds = interleaved(tasks(images, chosen.public, chosen.count), chosen.repeats, clock=chosen.clock)
    print(machine())
    print(f"{chosen.repeats} interleaved repeats of {chosen.count} images; medians of {chosen.clock} time\n")
    print(header("Inputs", "Images/s", "ms an image", "Times the public speed (lowest to highest round)"))
    for name, values in seconds.items():
        middle = median(values) / chosen.count
        versus = "{:.2f} ({:.2f} to {:.2f})".format(*ratio(seconds[PUBLIC], values)) if PUBLIC in seconds else ""
        print(row(name, 1 / middle, 1000 * middle, versus))


if __name__ == "__main__":
    main()
