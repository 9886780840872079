"""The pictures of CIM: exemplars over their true and their predicted correlation maps."""

from __future__ import annotations

import torch
from torch import Tensor

from cim_bench.contracts.pretext import Panel

TINT = (255.0, 90.0, 0.0)  # orange


def correlation_panels(context: Tensor, exemplars: Tensor, maps: Tensor, predicted: Tensor) -> list[list[Panel | None]]:
    """Three lines of one image: context and exemplars, true maps, predicted maps with their IoU.

    Args:
        context: (3, c, c) uint8.
        exemplars: (E, 3, e, e) uint8.
        maps: (E, c, c), 0 or 1.
        predicted: (E, c, c), probabilities.
    """
    lines: list[list[Panel | None]] = [[Panel(context, "context")], [None], [None]]
    for number, (cut, true, guess) in enumerate(zip(exemplars, maps, predicted, strict=True), start=1):
        both, either = (true > 0.5) & (guess > 0.5), (true > 0.5) | (guess > 0.5)
        iou = float(both.sum() / either.sum().clamp(min=1))
        lines[0].append(Panel(cut, f"exemplar {number}"))
        lines[1].append(Panel(shade(context, true), "true map"))
        lines[2].append(Panel(shade(context, guess), f"predicted, IoU {iou:.2f}"))
    return lines


def shade(image: Tensor, weight: Tensor) -> Tensor:
    """The image (3, H, W) where the map (H, W) is high, darkened where it is low, tinted by the map; uint8."""
    tint = torch.tensor(TINT, device=image.device).view(3, 1, 1)
    return (image * (0.35 + 0.35 * weight) + 0.3 * weight * tint).clamp(0, 255).to(torch.uint8)
