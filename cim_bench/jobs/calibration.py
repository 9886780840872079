"""Statistics of BatchNorm for networks that nothing was trained in."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset

from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import EvalTransform
from cim_bench.models.backbone import Backbone
from cim_bench.spec import Arch

PASS = 64  # images that are normalised together, as many as the small recipes train with


def calibrate(arch: Arch, state: dict[str, Tensor], images: ImageSet, most: int) -> dict[str, Tensor]:
    """The weights with BatchNorm's running statistics of images: their means over passes, one pass an image.

    All other layers act as in evaluation. The images are spread evenly over the set, and so are those of each pass.

    Args:
        arch: The network.
        state: Its weights, without head.
        images: The set; the whole image is resized and its centre cut out.
        most: Images to take.

    Raises:
        ValueError: If the network has no BatchNorm.
    """
    model = Backbone(arch)
    model.net.load_state_dict(state)
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise ValueError(f"RandomInit.calibrate is {most}, and {arch} has no BatchNorm; set it to 0")
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all passes
        norm.train()
    count = min(most, len(images))
    passes = math.ceil(count / PASS)
    chosen = [[place * len(images) // count for place in range(first, count, passes)] for first in range(passes)]
    with torch.no_grad():
        for batch in DataLoader(_Pixels(images, arch.image_size), batch_sampler=chosen):
            model.net.forward_features(model.normalize(batch.float() / 255))
    calibrated: dict[str, Tensor] = model.net.state_dict()
    return calibrated


class _Pixels(Dataset[Tensor]):
    """The images of a set as evaluation sees them."""

    def __init__(self, images: ImageSet, size: int) -> None:
        self.images, self.transform = images, EvalTransform(size, 1.0)

    def __getitem__(self, place: int) -> Tensor:
        return self.transform(self.images.read(place)[0])
