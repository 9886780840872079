"""Inputs of CIM, MAE and SimMIM drawn on the device, for a whole batch, from images that lie in its memory.

The draws have the distributions of the suite's own inputs, which loader workers make image by image; crops are
resampled by torch in place of Pillow. Models, losses and everything after them are the suite's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cim_bench.common.seeds import seed_all
from cim_bench.data.images import ImageSet
from cim_bench.pretrain.cim.method import CIM, CIMModel, make_pixels
from cim_bench.pretrain.cim.photometric import PHOTOMETRIC, sample_photometric
from cim_bench.pretrain.cim.prior import draw_boxes
from cim_bench.pretrain.mae import MAE, MAEModel
from cim_bench.pretrain.simmim import SimMIM, SimMIMModel
from cim_bench.spec import Arch

IMAGES: dict[str, Tensor] = {}  # by split: (N, 3, S, S) uint8 on the device
NEUTRAL = (*[1.0] * 3, *[0.0] * (PHOTOMETRIC.index("order0") - 3))  # parameters that change no colour


class Places:
    """Stands for `cim_bench.engine.samples.Augmented`: says which image and which draw; the model makes the pixels."""

    def __init__(self, images: ImageSet, _: Any, seed: int) -> None:
        self.images, self.seed = images, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, where: tuple[int, int]) -> dict[str, int]:
        return {"index": where[1], "draw": where[0], "train": int(self.images.split == "train")}

    def image_id(self, index: int) -> str:
        """The image's name."""
        return self.images.image_id(index)


def random_crops(images: Tensor, scale: tuple[float, float], mode: str) -> Tensor:
    """Random resized crops with flips, as torchvision draws them, at the images' own size; uint8."""
    count, side = len(images), images.shape[-1]
    area = side**2 * torch.empty(count, 10).uniform_(*scale)
    aspect = torch.empty(count, 10).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (w > 0) & (w <= side) & (h > 0) & (h <= side)
    first = fits.float().argmax(dim=1, keepdim=True)
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    whole = ~fits.any(dim=1)
    w, h = torch.where(whole, float(side), w), torch.where(whole, float(side), h)
    left, top = ((side - w + 1) * torch.rand(count)).floor(), ((side - h + 1) * torch.rand(count)).floor()
    flip, zero = torch.where(torch.rand(count) < 0.5, -1.0, 1.0), torch.zeros(count)
    x, y = (2 * left + w) / side - 1, (2 * top + h) / side - 1
    theta = torch.stack([flip * w / side, zero, x, zero, h / side, y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    cut = F.grid_sample(images.float(), grid, mode=mode, padding_mode="border", align_corners=False)
    return cut.round().clamp(0, 255).to(torch.uint8)


class DrawsOnDevice:
    """Mix-in of a pretext's model: `make` turns places into what the model takes."""

    def make(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the model takes, from places (``index``, ``draw``, ``train``)."""
        raise NotImplementedError

    def crops(self, batch: dict[str, Tensor], scale: tuple[float, float], mode: str) -> Tensor:
        """Crops of the batch's images; those of validation (negative draws) are the same every time."""
        if int(batch["draw"][0]) < 0:
            seed_all("held out", int(batch["draw"][0]), int(batch["index"][0]))
        return random_crops(IMAGES["train" if int(batch["train"][0]) else "val"][batch["index"]], scale, mode)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """As the model's, on places."""
        return super().forward(self.make(batch))  # type: ignore[misc]

    def held_out(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """As the model's, on places."""
        return super().held_out(self.make(batch))  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True)
class DeviceCIM(CIM):
    """CIM with a curriculum: from upright exemplars in their own colours to the published draws.

    Attributes:
        begin: Share of the training at which the curriculum leaves plain exemplars.
        full: Share at which it has reached the settings' own draws; 0 for these from the start.
    """

    begin: float = 0.0
    full: float = 0.0

    def build(self, arch: Arch) -> DeviceCIMModel:
        """A freshly initialised model."""
        return DeviceCIMModel(self, arch)


class DeviceCIMModel(DrawsOnDevice, CIMModel):
    """CIM's model; view, boxes and colour changes are drawn here."""

    progress = 0.0

    def strength(self) -> float:
        """In [0, 1]: of the largest angle, and the share of exemplars whose colours change."""
        s: Any = self.settings
        if not (self.training and s.full):
            return 1.0
        return min(1.0, max(0.0, (self.progress - s.begin) / (s.full - s.begin)))

    def make(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Contexts, exemplars and boxes."""
        s, strength = self.settings, self.strength()
        view = self.crops(batch, s.base_scale, "bicubic")
        count, many = len(view), len(view) * s.num_exemplars
        draws = {**s.draws, "max_degrees": round(s.max_degrees * strength)}
        boxes = draw_boxes(many, self.side, **draws).view(count, -1, 5)
        parameters = sample_photometric(many)
        parameters[torch.rand(many) >= strength, : len(NEUTRAL)] = torch.tensor(NEUTRAL)
        made = make_pixels(view, boxes, parameters.view(count, -1, len(PHOTOMETRIC)), s)
        return {**made, "boxes": boxes.to(view.device, non_blocking=True)}

    def after_step(self, progress: float) -> None:
        """Move target and curriculum."""
        super().after_step(progress)
        self.progress = progress


class DrawsMasks(DrawsOnDevice):
    """Crops with `many` of `cells` squares hidden."""

    mode = "bicubic"
    cells: int
    many: int

    def make(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Images and masks."""
        settings: Any = self.settings  # type: ignore[attr-defined]
        images = self.crops(batch, settings.crop_scale, self.mode)
        order = torch.rand(len(images), self.cells).argsort(dim=1)
        mask = torch.zeros(len(images), self.cells, dtype=torch.bool).scatter_(1, order[:, : self.many], True)
        return {"image": images, "mask": mask.to(images.device)}


@dataclass(frozen=True, kw_only=True)
class DeviceMAE(MAE):
    """MAE whose inputs are drawn on the device."""

    def build(self, arch: Arch) -> DeviceMAEModel:
        """A freshly initialised model."""
        return DeviceMAEModel(self, arch)


class DeviceMAEModel(DrawsMasks, MAEModel):
    """MAE's model."""

    def __init__(self, settings: MAE, arch: Arch) -> None:
        super().__init__(settings, arch)
        self.cells, self.many = len(self.decoder_positions), self.hidden


@dataclass(frozen=True, kw_only=True)
class DeviceSimMIM(SimMIM):
    """SimMIM whose inputs are drawn on the device."""

    def build(self, arch: Arch) -> DeviceSimMIMModel:
        """A freshly initialised model."""
        return DeviceSimMIMModel(self, arch)


class DeviceSimMIMModel(DrawsMasks, SimMIMModel):
    """SimMIM's model."""

    mode = "bilinear"

    def __init__(self, settings: SimMIM, arch: Arch) -> None:
        super().__init__(settings, arch)
        self.cells, self.many = self.grid**2, math.ceil(self.grid**2 * settings.mask_ratio)
