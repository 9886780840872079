"""CIM's inputs in closed form: regions, rotated boxes, exemplars and correlation maps.

Coordinates: the base view is a square of `side` pixels; points are (x, y) relative to its centre, x to the
right, y down. The frame rotated by an angle a (positive: counter-clockwise as seen) has coordinates
u = x cos a + y sin a, v = -x sin a + y cos a. A *box* (left, top, right, bottom, degrees) is axis-aligned in
that frame. Everything here is a pure function of tensors; loader workers and the accelerator call the same ones.
Geometry of the public code: weivision/Correlational-Image-Modeling, util/datasets.py.
"""

from __future__ import annotations

import math

import kornia.enhance as enhance
import torch
import torch.nn.functional as F
from kornia.color import rgb_to_grayscale
from kornia.filters import gaussian_blur2d
from torch import Tensor

# Columns of the photometric parameters that `sample_photometric` draws.
PHOTOMETRIC = ("brightness", "contrast", "saturation", "hue", "gray", "sigma", "solarize", "flip", "order0", "order1", "order2", "order3")
BLUR_KERNEL = 17  # 4 standard deviations on either side at the largest sigma of 2.0


def sample_regions(count: int, side: int, *, scale: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """Axis-aligned regions of the base view, as torchvision's RandomResizedCrop draws them.

    Area fraction U(scale), log-aspect U(log ratio), whole pixels, up to ten draws; then the centred fallback.

    Args:
        count: How many.
        side: Of the base view, in pixels.
        scale: Range of the area fraction.
        ratio: Range of width / height.

    Returns:
        (count, 4) left, top, right, bottom in pixels from the top left corner.
    """
    draws = 10
    area = side * side * torch.empty(count, draws).uniform_(*scale)
    aspect = torch.empty(count, draws).uniform_(math.log(ratio[0]), math.log(ratio[1])).exp()
    w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (w > 0) & (h > 0) & (w <= side) & (h <= side)
    first = fits.float().argmax(dim=1, keepdim=True)  # the first draw that fits
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    centred = ~fits.any(dim=1)  # a square view lies within any ratio range around 1: the whole view
    w, h = torch.where(centred, float(side), w), torch.where(centred, float(side), h)
    left, top = ((side - w + 1) * torch.rand(count)).floor(), ((side - h + 1) * torch.rand(count)).floor()
    left, top = left.clamp(max=side - w), top.clamp(max=side - h)
    return torch.stack([left, top, left + w, top + h], dim=1)


def rotated_boxes(regions: Tensor, degrees: Tensor, side: int) -> Tensor:
    """The box around each rotated region, shrunk where a corner would leave the image.

    With a > 0 each corner can cross one border only, and one edge is moved for it: top left moves the top,
    then top right the right, bottom left the left, bottom right the bottom edge; with a < 0, top left moves
    the left, top right the top, bottom left the bottom, bottom right the right edge.

    Args:
        regions: (..., 4) left, top, right, bottom in pixels from the top left corner.
        degrees: (...) rotation angles, counter-clockwise, |a| <= 90.
        side: Of the base view, in pixels.

    Returns:
        (..., 5) left, top, right, bottom in the rotated frame relative to the centre, and degrees.
    """
    half = side / 2
    a = torch.deg2rad(degrees)
    c, s = a.cos(), a.sin()
    x, y = (regions[..., [0, 2, 0, 2]] - half, regions[..., [1, 1, 3, 3]] - half)
    u, v = x * c[..., None] + y * s[..., None], y * c[..., None] - x * s[..., None]
    left, right, top, bottom = u.amin(-1), u.amax(-1), v.amin(-1), v.amax(-1)

    ccw_top = torch.maximum(top, (-half - s * left) / c)
    ccw_right = torch.minimum(right, (half + s * ccw_top) / c)
    ccw_left = torch.maximum(left, (s * bottom - half) / c)
    ccw_bottom = torch.minimum(bottom, (half - s * ccw_right) / c)

    cw_left = torch.maximum(left, (s * top - half) / c)
    cw_top = torch.maximum(top, (-half - s * right) / c)
    cw_bottom = torch.minimum(bottom, (half - s * cw_left) / c)
    cw_right = torch.minimum(right, (half + s * cw_bottom) / c)

    ccw = torch.stack([ccw_left, ccw_top, ccw_right, ccw_bottom], dim=-1)
    cw = torch.stack([cw_left, cw_top, cw_right, cw_bottom], dim=-1)
    return torch.cat([torch.where(degrees[..., None] > 0, ccw, cw), degrees[..., None]], dim=-1)


def correlation_maps(boxes: Tensor, side: int, resolution: int) -> Tensor:
    """1 where a pixel's centre lies in the box, else 0: the rotated rectangle drawn at context resolution.

    Args:
        boxes: (..., 5) from `rotated_boxes`.
        side: Of the base view the boxes refer to.
        resolution: Height and width of the map.

    Returns:
        (..., resolution, resolution) bool.
    """
    centres = ((torch.arange(resolution, device=boxes.device) + 0.5) / resolution - 0.5) * side
    a = torch.deg2rad(boxes[..., 4])[..., None, None]
    x, y = centres.view(1, -1), centres.view(-1, 1)
    left, top, right, bottom = (boxes[..., i][..., None, None] for i in range(4))
    u, v = x * a.cos() + y * a.sin(), y * a.cos() - x * a.sin()
    return (u >= left) & (u < right) & (v >= top) & (v < bottom)


def cut_exemplars(views: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut every box out of its base view by one affine sampling, antialiased.

    Each output pixel is the mean of kx × ky bilinear samples, as many as bring their spacing to at most one
    pixel of the base view. Samples beyond the outermost pixel centres repeat the edge; none is padding.

    Args:
        views: (B, 3, side, side) float base views.
        boxes: (B, E, 5) from `rotated_boxes`, on the CPU (they decide which kernels run).
        size: Height and width of an exemplar.

    Returns:
        (B, E, 3, size, size), in the range of `views`.
    """
    side = views.shape[-1]
    out = views.new_empty(*boxes.shape[:2], 3, size, size)
    extent = torch.stack([boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]], dim=-1)
    taps = (extent / size - 1e-4).ceil().clamp(min=1).long()  # (B, E, 2) samples a pixel in u and v
    for kx, ky in taps.flatten(0, 1).unique(dim=0).tolist():
        b, e = ((taps[..., 0] == kx) & (taps[..., 1] == ky)).nonzero(as_tuple=True)
        theta = _sampling_matrix(boxes[b, e], side).to(views.device, non_blocking=True)
        grid = F.affine_grid(theta, [len(b), 3, size * ky, size * kx], align_corners=False)
        source = views.expand(len(b), -1, -1, -1) if len(views) == 1 else views[b.to(views.device)]
        cut = F.grid_sample(source, grid.to(views.dtype), mode="bilinear", padding_mode="border", align_corners=False)
        out[b.to(out.device), e.to(out.device)] = F.avg_pool2d(cut, (ky, kx)) if kx * ky > 1 else cut
    return out


def _sampling_matrix(boxes: Tensor, side: int) -> Tensor:
    """(N, 2, 3) map from output coordinates in [-1, 1] to view coordinates in [-1, 1]."""
    a = torch.deg2rad(boxes[:, 4])
    c, s = a.cos(), a.sin()
    u0, v0 = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    ru, rv = (boxes[:, 2] - boxes[:, 0]) / 2, (boxes[:, 3] - boxes[:, 1]) / 2
    rows = torch.stack([c * ru, -s * rv, c * u0 - s * v0, s * ru, c * rv, s * u0 + c * v0], dim=1)
    return rows.view(-1, 2, 3) / (side / 2)


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
    images = images.clone()
    value = {name: parameters[:, i] for i, name in enumerate(PHOTOMETRIC)}

    def on(chosen: Tensor, change: object, *names: str) -> None:
        rows = chosen.nonzero()[:, 0]
        if len(rows):
            arguments = [value[name][rows].to(images.device, images.dtype) for name in names]
            index = rows.to(images.device)
            images[index] = change(images[index], *arguments)  # type: ignore[operator]

    active = (parameters[:, :3] != 1).any(dim=1) | (value["hue"] != 0)
    for slot in range(4):
        for number, (name, change) in enumerate(JITTER.items()):
            on(active & (value[f"order{slot}"] == number), change, name)
    on(value["gray"] > 0, lambda x: rgb_to_grayscale(x).expand(-1, 3, -1, -1))
    on(value["sigma"] > 0, lambda x, s: gaussian_blur2d(x, BLUR_KERNEL, torch.stack([s, s], dim=1)), "sigma")
    on(value["solarize"] > 0, lambda x: torch.where(x >= 128 / 255, 1 - x, x))  # PIL's threshold of 128
    on(value["flip"] > 0, lambda x: x.flip(-1))
    return images


# In PIL's definitions: brightness scales, contrast blends with the mean of the gray image, saturation with the gray image.
JITTER = {
    "brightness": enhance.adjust_brightness_accumulative,
    "contrast": enhance.adjust_contrast_with_mean_subtraction,
    "saturation": enhance.adjust_saturation_with_gray_subtraction,
    "hue": lambda images, turns: enhance.adjust_hue(images, turns * (2 * math.pi)),
}
