"""Shared parts of masked image modelling (MAE, SimMIM): masks, inputs, held-out metrics and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as T

from cim_bench.contracts.pretext import Panel, PretextModel
from cim_bench.data.transforms import to_uint8

HiddenShare = Annotated[float, Interval(gt=0, lt=1)]  # of an image: some of it is hidden and some visible
GREY = 128  # what pictures show in place of hidden pixels


class MaskedInputs:
    """A random resized crop with flip, and which cells of it are hidden.

    Args:
        side: Pixels a side of the crop.
        scale: Its area range, as a fraction of the image; its aspect lies in (3/4, 4/3).
        interpolation: Of the crop's resize.
        cells: Squares that can be hidden.
        hidden: How many of them are.
    """

    def __init__(
        self, side: int, *, scale: tuple[float, float], interpolation: T.InterpolationMode, cells: int, hidden: int
    ) -> None:
        crop = T.RandomResizedCrop(side, scale=scale, ratio=(3 / 4, 4 / 3), interpolation=interpolation)
        self.view = T.Compose([crop, T.RandomHorizontalFlip()])
        self.cells, self.hidden = cells, hidden

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        """``image`` (3, side, side) uint8 and ``mask`` (cells,) bool, true where hidden."""
        return {"image": to_uint8(self.view(image)), "mask": random_mask(self.cells, self.hidden)}


class MaskedModel(PretextModel):
    """Base of MAE's and SimMIM's models: held-out metrics, and an encoder without a moving average."""

    reference = "the better of a constant and a blurred copy of the visible pixels"

    def network(self) -> nn.Module:
        """The timm network inside."""
        raise NotImplementedError

    def blurred_losses(self, sums: Mapping[str, Tensor], tuning: Mapping[str, Tensor]) -> Tensor:
        """(W,) sums over images of the loss of a copy blurred by each of the widths.

        Args:
            sums: Those of ``held_out``.
            tuning: The same over training images.
        """
        raise NotImplementedError

    def held_out_metrics(self, sums: Mapping[str, Tensor], tuning: Mapping[str, Tensor]) -> dict[str, float]:
        """The loss as in training, that of a constant and that of a blurred copy, and the lower one of these two."""
        width = int(self.blurred_losses(tuning, tuning).argmin())
        losses = {
            "val_loss": sums["loss"],
            "val_constant_loss": sums["constant"],
            "val_blurred_loss": self.blurred_losses(sums, tuning)[width],
        }
        metrics = {name: float(total / sums["images"]) for name, total in losses.items()}
        reference = min(metrics["val_constant_loss"], metrics["val_blurred_loss"])
        return {**metrics, "val_reference_loss": reference}

    def backbone_state(self, which: Literal["online", "ema"]) -> dict[str, Tensor]:
        """The encoder.

        Raises:
            ValueError: If an EMA encoder is asked for; there is none.
        """
        if which == "ema":
            raise ValueError(f"{type(self).__name__.removesuffix('Model')} keeps no EMA encoder; set export to online")
        return self.network().state_dict()


def random_mask(cells: int, hidden: int) -> Tensor:
    """(cells,) bool with exactly `hidden` true, every choice equally likely; from torch's global generator."""
    mask = torch.zeros(cells, dtype=torch.bool)
    mask[torch.randperm(cells)[:hidden]] = True
    return mask


def mae_hidden(patches: int, ratio: float) -> int:
    """How many patches MAE hides: it rounds the visible ones down (facebookresearch/mae, models_mae.py).

    Raises:
        ValueError: If none would be hidden or visible.

    Examples:
        >>> mae_hidden(196, 0.75)
        147
        >>> mae_hidden(10, 0.75)  # 2.5 visible patches become 2
        8
    """
    return _checked(patches - int(patches * (1 - ratio)), patches, ratio)


def simmim_hidden(cells: int, ratio: float) -> int:
    """How many squares SimMIM hides: it rounds the hidden ones up (microsoft/SimMIM, data/data_simmim.py).

    Raises:
        ValueError: If none would be hidden or visible.

    Examples:
        >>> simmim_hidden(49, 0.6)  # 29.4 hidden squares become 30
        30
    """
    return _checked(math.ceil(cells * ratio), cells, ratio)


def _checked(hidden: int, cells: int, ratio: float) -> int:
    if not 0 < hidden < cells:
        raise ValueError(
            f"mask_ratio {ratio} hides {hidden} of {cells} squares of an image; "
            "choose one that leaves some hidden and some visible, or smaller squares"
        )
    return hidden


def split_mask(mask: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    """Places of the visible and of the hidden cells, each in ascending order.

    Args:
        mask: (B, cells) bool, true where hidden.
        hidden: How many are, in every row.

    Returns:
        (B, cells - hidden) and (B, hidden) int64.
    """
    order = mask.int().argsort(dim=1, stable=True)
    return order[:, :-hidden], order[:, -hidden:]


def enlarge(mask: Tensor, factor: int) -> Tensor:
    """(B, g, g) to (B, g * factor, g * factor): every cell becomes a square of cells."""
    return mask.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def reconstruction_panels(
    images: Tensor, shown: Tensor, rebuilt: Tensor, share: float, losses: Tensor
) -> list[list[list[Panel | None]]]:
    """A line for each image: itself, what is visible of it, and its reconstruction.

    Args:
        images: (B, 3, S, S) uint8.
        shown: Likewise, with `GREY` where hidden.
        rebuilt: Likewise, with predictions where hidden.
        share: Of the image that is hidden.
        losses: (B,).
    """
    rows = zip(images.cpu(), shown.cpu(), rebuilt.cpu(), losses.tolist(), strict=True)
    return [
        [[Panel(image, "image"), Panel(part, f"{share:.0%} hidden"), Panel(whole, f"reconstruction, loss {loss:.3f}")]]
        for image, part, whole, loss in rows
    ]
