"""The fifteen corruptions of ImageNet-C on one core, in images a second: ours, and public NumPy code beside it.

    python benchmarks/corruptions.py --reference REFERENCE

REFERENCE is a checkout of bethgelab/imagecorruptions or hendrycks/robustness, imported at run time; it needs
scikit-image, SciPy, OpenCV (opencv-python-headless will do) and, the former, numba; hendrycks/robustness's motion_blur
and snow also need Wand and ImageMagick, and are left out without them. A round makes `--count` images
with each of the severities; ours takes them as one batch, the public code one by one.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import CLOCKS, Task, header, interleaved, machine, median, ratio, row

from cim_bench.data.photos.crops import photos
from cim_bench.data.transforms import EvalTransform
from cim_bench.evals.corruptions.generate import CORRUPTIONS, SEVERITIES, corrupt, frost_source

PACKAGES = {"imagecorruptions": ".", "imagenet_c": "ImageNet-C/imagenet_c"}  # and where a checkout has them
NEED_WAND = {"imagecorruptions": (), "imagenet_c": ("motion_blur", "snow")}


def photographs(folder: Path, count: int, size: int) -> torch.Tensor:
    """(count, 3, size, size) uint8, spread evenly over the files below `folder`."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    transform = EvalTransform(size, 0.875)
    return torch.stack([transform(Image.open(path).convert("RGB")) for path in chosen])


def module(name: str, **content: object) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(content)
    return made


def revive(folder: Path) -> bool:
    """Give the public code the modules and names that newer releases have dropped; whether Wand is real."""
    import scipy.ndimage
    import skimage.filters

    current = skimage.filters.gaussian

    def gaussian(image: Any, sigma: Any, **options: Any) -> Any:
        if options.pop("multichannel", False):
            options["channel_axis"] = -1
        return current(image, sigma, **options)

    skimage.filters.gaussian = gaussian
    if "float_" not in vars(np):
        np.float_ = np.float64  # type: ignore[attr-defined]  # noqa: NPY201
    home = str(folder / "frost")
    resources = module("pkg_resources", resource_filename=lambda _, name: f"{home}/{Path(name).name}")
    sys.modules["pkg_resources"] = resources
    old = module("scipy.ndimage.interpolation", map_coordinates=scipy.ndimage.map_coordinates)
    sys.modules["scipy.ndimage.interpolation"] = old
    try:
        importlib.import_module("wand.image")
    except ImportError:
        library = module("library", MagickMotionBlurImage=types.SimpleNamespace())
        stubs = module("wand.image", Image=object), module("wand.api", library=library)
        sys.modules.update({made.__name__: made for made in (module("wand"), module("wand.color"), *stubs)})
        return False
    return True


def public_functions(checkout: Path) -> dict[str, Callable[[Image.Image, int], Any]]:
    """The corruptions of a checkout that can run here, by name.

    Raises:
        SystemExit: If `checkout` is of neither repository.
    """
    homes = {package: checkout / place for package, place in PACKAGES.items()}
    package = next((name for name, home in homes.items() if (home / name / "corruptions.py").is_file()), "")
    if not package:
        raise SystemExit(f"{checkout} is a checkout of neither bethgelab/imagecorruptions nor hendrycks/robustness")
    left_out = () if revive(homes[package] / package) else NEED_WAND[package]
    sys.path.insert(0, str(homes[package]))
    code = importlib.import_module(f"{package}.corruptions")
    code.cv2.setNumThreads(1)
    return {name: getattr(code, name) for name in CORRUPTIONS if name not in left_out}


def tasks(name: str, images: torch.Tensor, severities: list[int], public: dict[str, Any]) -> dict[str, Task]:
    """Ours and, where there is one, the public function on the same images: uint8 in, uint8 out."""
    seeds = torch.arange(len(images))
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    made: dict[str, Task] = {"ours": lambda: [corrupt(images, name, severity, seeds) for severity in severities]}
    if function := public.get(name):
        made["public"] = lambda: [
            np.uint8(function(Image.fromarray(array), severity)) for severity in severities for array in arrays
        ]
    return made


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="checkout of bethgelab/imagecorruptions or hendrycks/robustness")
    parser.add_argument("--images", type=Path, help="folder of photographs; default: the demo's")
    parser.add_argument("--size", type=int, default=224, help="side in pixels")
    parser.add_argument("--count", type=int, default=4, help="images a round")
    parser.add_argument("--severities", type=int, nargs="+", default=list(SEVERITIES))
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which the median counts")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    torch.set_num_threads(1)
    np.random.seed(0)  # noqa: NPY002  the public code draws from the global generator
    public = public_functions(chosen.reference) if chosen.reference else {}
    images = photographs(chosen.images or photos() / "val", chosen.count, chosen.size)
    print(machine())
    print(
        f"{chosen.repeats} alternating rounds of {chosen.count} images of {chosen.size} pixels at severities "
        f"{chosen.severities}; medians of {chosen.clock} time; frost is {frost_source()}\n"
    )
    print(header("Corruption", "Ours, images/s", "Public, images/s", "Ratio (lowest to highest round)"))
    ratios = []
    made = chosen.count * len(chosen.severities)
    for name in CORRUPTIONS:
        seconds = interleaved(tasks(name, images, chosen.severities, public), chosen.repeats, clock=chosen.clock)
        speeds = [made / median(values) for values in seconds.values()]
        if "public" not in seconds:
            print(row(name, speeds[0], "", ""))
            continue
        times = ratio(seconds["public"], seconds["ours"])
        ratios.append(times[0])
        print(row(name, *speeds, "{:.2f} ({:.2f} to {:.2f})".format(*times)))
    if ratios:
        means = f"{statistics.mean(ratios):.2f} arithmetic, {statistics.geometric_mean(ratios):.2f} geometric"
        print(row(f"mean of {len(ratios)}", "", "", means))


if __name__ == "__main__":
    main()
