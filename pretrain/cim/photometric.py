"""CIM's photometric changes of exemplars, batched: colour jitter, grayscale, blur, solarisation and flip."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Columns of the photometric parameters that `sample_photometric` draws.
PHOTOMETRIC = (
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "gray",
    "sigma",
    "solarize",
    "flip",
    "order0",
    "order1",
    "order2",
    "order3",
)
JITTER = ("brightness", "contrast", "saturation", "hue")  # in the order that columns order0 to order3 count
BLUR_KERNEL = 17  # 4 standard deviations on either side at the largest sigma of 2.0


def sample_photometric(count: int) -> Tensor:
    """Parameters of the exemplar transform (reference recipe: strengths and probabilities of CIM's public code).

    Returns:
        (count, 12) columns `PHOTOMETRIC`; ``sigma`` 0 means no blur, a factor of 1 and a hue of 0 no jitter.
    """
    jitter = torch.rand(count) < 0.8
    factors = [torch.empty(count).uniform_(1 - f, 1 + f) for f in (0.4, 0.4, 0.2)]
    factors = [torch.where(jitter, f, 1.0) for f in factors]
    hue = torch.where(jitter, torch.empty(count).uniform_(-0.1, 0.1), 0.0)
    gray, solarize, flip = (torch.rand(count) < p for p in (0.2, 0.2, 0.5))
    sigma = torch.where(torch.rand(count) < 0.5, torch.empty(count).uniform_(0.1, 2.0), 0.0)
    order = torch.rand(count, 4).argsort(dim=1)
    columns = [*factors, hue, gray.float(), sigma, solarize.float(), flip.float()]
    return torch.cat([torch.stack(columns, dim=1), order.float()], dim=1)


def photometric(images: Tensor, parameters: Tensor) -> Tensor:
    """ColorJitter in each sample's own order, then grayscale, blur, solarise and flip.

    Args:
        images: (N, 3, H, W) in [0, 1].
        parameters: (N, 12) from `sample_photometric`, on the CPU (they decide which kernels run).

    Returns:
        (N, 3, H, W) in [0, 1]; a new tensor.
    """
    # In PIL's definitions brightness, contrast and saturation blend with black, with the mean of the gray image
    # and with the gray image: one blend with a share of either serves all three, each sample its own.
    value = {name: parameters[:, i] for i, name in enumerate(PHOTOMETRIC)}
    order = parameters[:, PHOTOMETRIC.index("order0") :].long()
    factors = parameters[:, : len(JITTER)].clone()
    factors[:, JITTER.index("hue")] = 1  # blends nothing; the hue is turned after the blend
    shares = [factors.gather(1, order), order == JITTER.index("contrast"), order == JITTER.index("saturation")]
    for slot, (factor, mean_share, gray_share) in enumerate(_spread(torch.stack(shares).permute(2, 0, 1), images)):
        gray = _gray(images)
        other = gray * gray_share + gray.mean((-2, -1), keepdim=True) * mean_share
        images = torch.lerp(other, images, factor).clamp_(0, 1)
        turned = (order[:, slot] == JITTER.index("hue")) & (value["hue"] != 0)
        _change(images, turned, _turn_hue, value["hue"])
    for name, change in (("gray", _to_gray), ("sigma", _blur), ("solarize", _solarize), ("flip", _flip)):
        _change(images, value[name] > 0, change, value[name])
    return images


def _spread(values: Tensor, images: Tensor) -> Tensor:
    """A value of each sample, broadcast over its pixels."""
    return values.to(images.device, images.dtype, non_blocking=True)[..., None, None, None]


def _change(images: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor], argument: Tensor) -> None:
    """Change the chosen images in place."""
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        index = rows.to(images.device, non_blocking=True)
        images[index] = change(images[index], argument[rows].to(images.device, images.dtype, non_blocking=True))


def _gray(images: Tensor) -> Tensor:
    """(N, 1, H, W) luma, ITU-R 601-2."""
    red, green, blue = torch.split(images, 1, dim=1)
    luma: Tensor = (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return luma


def _to_gray(images: Tensor, _: Tensor) -> Tensor:
    return _gray(images).expand(-1, 3, -1, -1)


def _solarize(images: Tensor, _: Tensor) -> Tensor:
    return torch.where(images >= 128 / 255, 1 - images, images)  # PIL's threshold of 128


def _flip(images: Tensor, _: Tensor) -> Tensor:
    return images.flip(-1)


def _turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """HSV with H moved by a part of a full turn: the largest and smallest channel values stay."""
    red, green, blue = images.unbind(1)
    high, low = images.amax(1), images.amin(1)
    chroma = high - low
    sixths = torch.where(high == green, (blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4))
    sixths = torch.where(high == red, green - blue, sixths) / chroma.clamp(min=1e-9) + turns[:, None, None] * 6
    sixths.sub_((sixths / 6).floor_(), alpha=6)  # remainder, which is slow on the CPU
    ramps = torch.stack([(sixths - 3).abs_() - 1, 2 - (sixths - 2).abs_(), 2 - (sixths - 4).abs_()], dim=1)
    return torch.addcmul(low[:, None], chroma[:, None], ramps.clamp_(0, 1))


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, each sample its own sigma, reflecting borders: a matrix for rows and for columns."""
    offsets = torch.arange(BLUR_KERNEL, device=images.device) - BLUR_KERNEL // 2
    weights = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1)
    height, width = images.shape[-2:]
    with torch.autocast(images.device.type, enabled=False):
        across, down = (torch.tensordot(weights, _reflections(n, images.device), 1).mT for n in (width, height))
        rows = (images.reshape(len(images), -1, width) @ across).view_as(images)
        columns = rows.mT.reshape(len(images), -1, height) @ down
    blurred: Tensor = columns.view(*images.shape[:2], width, height).mT
    return blurred


@functools.lru_cache(maxsize=8)
def _reflections(size: int, device: torch.device) -> Tensor:
    """(kernel, size, size) with a 1 where an output position (row) reads an input position (column) at a tap."""
    offsets = torch.arange(BLUR_KERNEL) - BLUR_KERNEL // 2
    position = (torch.arange(size) + offsets[:, None]).abs()
    position = (size - 1) - ((size - 1) - position).abs()
    chosen: Tensor = F.one_hot(position, size).float().to(device)
    return chosen
