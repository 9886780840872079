"""CIM's inputs in closed form: regions, rotated boxes, exemplars and correlation maps.

Coordinates: the base view is a square of `side` pixels; points are (x, y) relative to its centre, x to the
right, y down. The frame rotated by an angle a (positive: counter-clockwise as seen) has coordinates
u = x cos a + y sin a, v = -x sin a + y cos a. A *box* (left, top, right, bottom, degrees) is axis-aligned in
that frame. Everything here is a pure function of tensors; loader workers and the accelerator call the same ones.
Geometry of the public code: weivision/Correlational-Image-Modeling, util/datasets.py.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor


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
    side, count = views.shape[-1], boxes.shape[1]
    boxes = boxes.flatten(0, 1)
    extent = boxes[:, 2:4] - boxes[:, :2]
    taps = (extent / size - 1e-4).ceil().clamp(min=1).long()  # (B * E, 2) samples a pixel in u and v
    kinds, kind, counts = torch.unique(taps, dim=0, return_inverse=True, return_counts=True)
    order = kind.argsort()  # boxes with equal taps together
    maps = _sampling_matrix(boxes[order], side).to(views.device, views.dtype, non_blocking=True)
    image = (order // count).to(views.device, non_blocking=True)
    cuts, groups = [], counts.tolist()
    for (kx, ky), rows, some in zip(kinds.tolist(), torch.split(image, groups), torch.split(maps, groups), strict=True):
        source = views.expand(len(some), -1, -1, -1) if len(views) == 1 else views[rows]
        grid = _sampling_grid(some, kx, ky, size)
        cut = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
        cuts.append(cut.view(len(some), 3, ky * kx, size, size).mean(dim=2))
    back = order.argsort().to(views.device, non_blocking=True)
    exemplars = torch.cat(cuts)[back]
    return exemplars.view(-1, count, *exemplars.shape[1:])


def _sampling_grid(maps: Tensor, kx: int, ky: int, size: int) -> Tensor:
    """(N, ky * kx * size, size, 2) view coordinates of all samples: one size × size plane for each tap."""
    u, v = (_tap_positions(taps, size, maps.device, maps.dtype) for taps in (kx, ky))
    scale_u, scale_v, offset = maps[..., None, None].unbind(2)  # each (N, 2, 1, 1)
    along, across = scale_u * u, scale_v * v + offset  # (N, 2, kx, size) and (N, 2, ky, size)
    planes = maps.new_empty(len(maps), 2, ky, kx, size, size)
    torch.add(across[:, :, :, None, :, None], along[:, :, None, :, None, :], out=planes)
    return planes.view(-1, 2, ky * kx * size, size).permute(0, 2, 3, 1)


@functools.lru_cache(maxsize=64)
def _tap_positions(taps: int, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(taps, size) coordinates in [-1, 1] of the samples of each output pixel."""
    steps = (torch.arange(size * taps, device=device) * 2 + 1) / (size * taps) - 1
    return steps.to(dtype).view(size, taps).T


def _sampling_matrix(boxes: Tensor, side: int) -> Tensor:
    """(N, 2, 3) map from output coordinates in [-1, 1] to view coordinates in [-1, 1]."""
    a = torch.deg2rad(boxes[:, 4])
    c, s = a.cos(), a.sin()
    u0, v0 = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    ru, rv = (boxes[:, 2] - boxes[:, 0]) / 2, (boxes[:, 3] - boxes[:, 1]) / 2
    rows = torch.stack([c * ru, -s * rv, c * u0 - s * v0, s * ru, c * rv, s * u0 + c * v0], dim=1)
    return rows.view(-1, 2, 3) / (side / 2)
