"""The pictures of CIM: exemplars over their true and their predicted correlation maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cim_bench.contracts.pretext import Panel

TINT = (255.0, 90.0, 0.0)  # orange


def correlation_panels(
    context: Tensor, exemplars: Tensor, maps: Tensor, logits: Tensor, prior: Tensor
) -> list[list[Panel | None]]:
    """Three lines of one image: context and exemplars, true maps, predicted maps; the prior below the context.

    Above a predicted map stand its IoU, cut at one half, and its loss with that of the prior, which no cut favours.

    Args:
        context: (3, c, c) uint8.
        exemplars: (E, 3, e, e) uint8.
        maps: (E, c, c), 0 or 1.
        logits: (E, c, c), of the predicted maps.
        prior: (c, c), probabilities of the best map that ignores the exemplar.
    """
    blind = Panel(shade(context, prior / prior.max()), "without exemplar")
    lines: list[list[Panel | None]] = [[Panel(context, "context")], [None], [blind]]
    for number, (cut, true, logit) in enumerate(zip(exemplars, maps, logits, strict=True), start=1):
        guess = logit.sigmoid()
        both, either = (true > 0.5) & (guess > 0.5), (true > 0.5) | (guess > 0.5)
        iou = float(both.sum() / either.sum().clamp(min=1))
        loss = float(F.binary_cross_entropy_with_logits(logit, true))
        without = float(F.binary_cross_entropy(prior, true))
        lines[0].append(Panel(cut, f"exemplar {number}"))
        lines[1].append(Panel(shade(context, true), "true map"))
        title = f"predicted, IoU {iou:.2f}\nloss {loss:.2f}, without {without:.2f}"
        lines[2].append(Panel(shade(context, guess), title))
    return lines


def shade(image: Tensor, weight: Tensor) -> Tensor:
    """The image (3, H, W) where the map (H, W) is high, darkened where it is low, tinted by the map; uint8."""
    tint = torch.tensor(TINT, device=image.device).view(3, 1, 1)
    return (image * (0.35 + 0.35 * weight) + 0.3 * weight * tint).clamp(0, 255).to(torch.uint8)
