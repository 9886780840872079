"""What a pretext gives to the training loop: a model that returns its loss, and inputs made from one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from cim_bench.spec import Arch, PlugIn


class PretextInputs(Protocol):
    """Picklable: runs in loader workers. Randomness comes from torch's global generator, seeded per sample."""

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        """Tensors of one sample, stacked by the loader."""
        ...


@dataclass(frozen=True)
class Panel:
    """One picture of a figure: uint8 (3, H, W), and what stands above it."""

    image: Tensor
    title: str = ""


class PretextModel(nn.Module):
    """A self-supervised model: the backbone and whatever its loss needs.

    Attributes:
        mean: Input normalisation, per channel of an image in [0, 1].
        std: Likewise.
        reference: What ``val_reference_loss`` is the loss of: the best prediction without learning, as a noun.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    reference: ClassVar[str] = "a prediction without learning"

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``loss`` (scalar) and further scalars for the log."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called once after every optimiser step with the finished fraction of training, in [0, 1)."""

    @torch.no_grad()
    def held_out(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the batch, of any shapes, that `held_out_metrics` divides; called with the model in eval mode."""
        raise NotImplementedError

    def held_out_metrics(self, sums: Mapping[str, Tensor], tuning: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics of the whole held-out set: ``val_loss``, and for a method that knows one, ``val_reference_loss``.

        Args:
            sums: Those of `held_out` over the held-out images.
            tuning: The same over training images, on which free values are chosen: a threshold, a blur.
        """
        raise NotImplementedError

    def backbone_state(self, which: Literal["online", "ema"]) -> dict[str, Tensor]:
        """The encoder as a plain timm state dict.

        Raises:
            ValueError: If the method keeps no EMA encoder and one is asked for.
        """
        raise NotImplementedError

    @torch.no_grad()
    def pictures(self, batch: Mapping[str, Tensor]) -> list[list[list[Panel | None]]]:
        """What ``cim-bench visualize`` draws: for each image its lines of panels; ``None`` leaves a place empty."""
        raise NotImplementedError


class Pretext(PlugIn):
    """Contract of a self-supervised method; subclasses are frozen keyword-only dataclasses of its settings.

    Attributes:
        method: Its name in tables.
        version: Bumped whenever weights can move.
        computing: Settings that say where something is computed and not what; no table needs to mention them.
    """

    method: ClassVar[str]
    version: ClassVar[int]
    computing: ClassVar[tuple[str, ...]] = ()

    def build(self, arch: Arch) -> PretextModel:
        """A freshly initialised model (from torch's global generator)."""
        raise NotImplementedError

    def inputs(self, arch: Arch) -> PretextInputs:
        """What a loader worker does to one decoded image."""
        raise NotImplementedError
