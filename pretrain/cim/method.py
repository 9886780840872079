"""Correlational Image Modeling (Li et al., CVPR 2023): crop exemplars, predict where they came from.

The online encoder sees exemplars, its moving average sees the whole image (the context). One cross-attention
block, with context tokens as queries and exemplar tokens as keys and values, decodes a correlation map for
each exemplar. Numbers and names follow the public code, weivision/Correlational-Image-Modeling.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import RandomResizedCrop

from cim_bench.common.ranges import AreaRange, Ascending, Pixels, Positive, Share
from cim_bench.contracts.pretext import Panel, Pretext, PretextModel
from cim_bench.data.transforms import to_uint8
from cim_bench.models.positions import sincos_positions
from cim_bench.pretrain.cim.contrastive import ContrastiveHead
from cim_bench.pretrain.cim.decoder import CorrelationBlock, upsampling_matrix
from cim_bench.pretrain.cim.ema import cosine_momentum, ema_update
from cim_bench.pretrain.cim.encoders import ResNetEncoder, TokenEncoder, ViTEncoder
from cim_bench.pretrain.cim.exemplars import correlation_maps, cut_exemplars
from cim_bench.pretrain.cim.photometric import photometric, sample_photometric
from cim_bench.pretrain.cim.pictures import correlation_panels
from cim_bench.pretrain.cim.prior import (
    LEVELS,
    RegionDraws,
    cross_entropy,
    draw_boxes,
    iou_by_threshold,
    position_prior,
)
from cim_bench.pretrain.vit import Width, check_heads, init_weights
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, Arch

Ratio = Annotated[float, Interval(ge=0.01, le=100)]  # of width and height


@dataclass(frozen=True, kw_only=True)
class CIM(Pretext):
    """Correlational Image Modeling: crop exemplars and predict where they came from.

    Attributes:
        context_size: Pixels a side of the context, which the base view is resized to.
        exemplar_size: Pixels a side of an exemplar.
        num_exemplars: Per image.
        base_scale: Area range of the base view's random resized crop.
        region_scale: Area range of an exemplar's region, as a fraction of the base view.
        region_ratio: Aspect range of that region.
        max_degrees: Rotations are whole degrees in [-max, max).
        photometric: Change exemplars' colours, sharpness and handedness; without it a short training gets further.
        decoder_dim: Width of the cross-attention decoder.
        decoder_heads: Its heads.
        map_std: Standard deviation of the initial weights of the last layer, which gives the maps: 1 by the public
            code's rule √(2 / outputs); ``None`` for Xavier's, under which the loss starts lower, at 1 to 2 times
            that of even odds.
        ema_momentum: Of the target encoder, from first to last along half a cosine.
        sigma_corr: Weight of the correlation loss.
        sigma_cont: Weight of the contrastive term; 0 in the published recipe.
        cut_on: Where exemplars are cut; same numbers either way, to rounding.
    """

    method: ClassVar[str] = "CIM"
    version: ClassVar[int] = 2
    computing: ClassVar[tuple[str, ...]] = ("cut_on",)

    context_size: Pixels = 160
    exemplar_size: Pixels = 64
    num_exemplars: Positive = 6
    base_scale: AreaRange = (0.5, 1.0)
    region_scale: AreaRange = (0.05, 0.48)
    region_ratio: Annotated[tuple[Ratio, Ratio], Ascending()] = (1 / 3, 3.0)
    max_degrees: Annotated[int, Interval(ge=0, le=90)] = 45
    photometric: bool = True
    decoder_dim: Width = 512
    decoder_heads: Positive = 16
    map_std: Annotated[float, Interval(ge=0, le=100)] | None = 1.0
    ema_momentum: tuple[Share, Share] = (0.99, 1.0)
    sigma_corr: Annotated[float, Gt(0)] = 1.0
    sigma_cont: Annotated[float, Ge(0)] = 0.0
    cut_on: Literal["worker", "device"] = "worker"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.decoder_dim, self.decoder_heads, "CIM.decoder")
        if self.exemplar_size > self.context_size:
            raise ValueError(
                f"CIM.exemplar_size {self.exemplar_size} is larger than CIM.context_size {self.context_size}, of "
                "which an exemplar is a part; give a smaller one"
            )

    @property
    def draws(self) -> RegionDraws:
        """Settings of the regions' draws, as `draw_boxes` and `position_prior` take them."""
        return {"scale": self.region_scale, "ratio": self.region_ratio, "max_degrees": self.max_degrees}

    def build(self, arch: Arch) -> CIMModel:
        """A freshly initialised model."""
        return CIMModel(self, arch)

    def inputs(self, arch: Arch) -> CIMInputs:
        """What a loader worker does to one image."""
        return CIMInputs(self, arch.image_size)


class CIMInputs:
    """Base view, regions and photometric draws of one image; and, unless the device does it, the pixels too."""

    def __init__(self, settings: CIM, side: int) -> None:
        self.settings, self.side = settings, side

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        """Boxes (E, 5), photometric parameters (E, 12), and ``view`` or ``context`` with ``exemplars``."""
        s, side = self.settings, self.side
        top, left, height, width = RandomResizedCrop.get_params(image, list(s.base_scale), [3 / 4, 4 / 3])
        box = (left, top, left + width, top + height)
        view = to_uint8(image.resize((side, side), Image.Resampling.BICUBIC, box=box))
        if torch.rand(()) < 0.5:
            view = view.flip(-1)
        boxes = draw_boxes(s.num_exemplars, side, **s.draws)
        drawn = {"boxes": boxes, "photometric": sample_photometric(s.num_exemplars)}
        if s.cut_on == "device":
            return {"view": view, **drawn}
        pixels = make_pixels(view[None], drawn["boxes"][None], drawn["photometric"][None], s)
        return {**{name: value[0] for name, value in pixels.items()}, **drawn}


def make_pixels(views: Tensor, boxes: Tensor, parameters: Tensor, settings: CIM) -> dict[str, Tensor]:
    """Contexts and exemplars of base views; the same function in loader workers and on the accelerator.

    Args:
        views: (B, 3, side, side) uint8.
        boxes: (B, E, 5), on the CPU.
        parameters: (B, E, 12), on the CPU.
        settings: The pretext.

    Returns:
        ``context`` (B, 3, c, c) and ``exemplars`` (B, E, 3, e, e), uint8.
    """
    pixels = views.float() / 255
    size = (settings.context_size, settings.context_size)
    context = F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
    cut = cut_exemplars(pixels, boxes, settings.exemplar_size)
    if settings.photometric:
        cut = photometric(cut.flatten(0, 1), parameters.flatten(0, 1)).view_as(cut)
    return {"context": _to_bytes(context), "exemplars": _to_bytes(cut)}


def _to_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


class CIMModel(PretextModel):
    """Online encoder, EMA target, and the correlation decoder.

    Args:
        settings: The pretext.
        arch: A plain timm ViT with class token, or a ResNet.

    Raises:
        ValueError: If the architecture is neither, sizes do not divide by its patch or stride, or the contrastive
            term is on and there is no class token.
    """

    reference = "a map that ignores the exemplar"
    context_positions: Tensor
    exemplar_positions: Tensor
    decoder_positions: Tensor
    upsampling: Tensor
    pixel: Tensor

    def __init__(self, settings: CIM, arch: Arch) -> None:
        super().__init__()
        self.settings, self.side = settings, arch.image_size
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD
        resnet = arch.name.startswith("resnet")
        self.tokens: TokenEncoder = ResNetEncoder(arch) if resnet else ViTEncoder(arch, "CIM, besides ResNets,")
        if settings.sigma_cont and not self.tokens.prefix:
            raise ValueError(f"CIM's contrastive term needs a class token, which {arch} lacks; set sigma_cont to 0")
        self.online, dim = self.tokens.net, self.tokens.dim
        self.grids = [self._grid(name) for name in ("context_size", "exemplar_size")]
        for name, cells in zip(("context_positions", "exemplar_positions"), self.grids, strict=True):
            self.register_buffer(name, self.tokens.positions(cells), persistent=False)
        width = settings.decoder_dim
        self.decoder_embed = nn.Linear(dim, width)
        self.register_buffer("decoder_positions", sincos_positions(width, self.grids[0])[:, 1:], persistent=False)
        self.decoder_block = CorrelationBlock(width, settings.decoder_heads)
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_pred = nn.Conv2d(width, 2, 1)
        self.register_buffer("upsampling", upsampling_matrix(self.grids[0], settings.context_size), persistent=False)
        for part in (self.decoder_embed, self.decoder_block, self.decoder_norm):
            part.apply(init_weights)
        last = self.decoder_pred
        if settings.map_std is not None:  # the public code leaves torch's default for the bias
            nn.init.normal_(last.weight, std=settings.map_std)
        else:
            nn.init.xavier_uniform_(last.weight.view(2, width))
            assert last.bias is not None
            nn.init.zeros_(last.bias)
        self.contrastive = ContrastiveHead(dim) if settings.sigma_cont else None
        self.target: Any = copy.deepcopy(self.online).requires_grad_(False)
        pixel = torch.tensor([self.mean, self.std]).view(2, 1, 3, 1, 1)
        self.register_buffer("pixel", pixel, persistent=False)

    def _grid(self, setting: str) -> int:
        try:
            return self.tokens.grid(getattr(self.settings, setting))
        except ValueError as error:
            raise ValueError(f"CIM.{setting}: {error}") from error

    def encode(self, net: Any, images: Tensor, positions: Tensor) -> Tensor:
        """uint8 images (N, 3, h, w) to tokens (N, prefix + L, D)."""
        return self.tokens(net, (images.float() / 255 - self.pixel[0]) / self.pixel[1], positions)

    def pixels(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Contexts and exemplars, cut here if the workers left that to the device."""
        if "view" in batch:
            made = make_pixels(batch["view"], batch["boxes"].cpu(), batch["photometric"].cpu(), self.settings)
            return made["context"], made["exemplars"]
        return batch["context"], batch["exemplars"]

    def decode(self, context: Tensor, exemplars: Tensor) -> Tensor:
        """Tokens (B, p + L, D) and (B, E, p + T, D) to the logit of "inside" (B, E, g, g) on the context grid.

        Two-class cross entropy depends on the difference of the two logits alone, upsampling is linear, and no
        context token sees another: so one difference channel is decoded, at grid resolution, of cells alone.
        """
        queries = self.decoder_embed(context[:, self.tokens.prefix :]) + self.decoder_positions
        x = self.decoder_norm(self.decoder_block(queries, self.decoder_embed(exemplars)))
        weight, bias = self.decoder_pred.weight[:, :, 0, 0], self.decoder_pred.bias
        assert bias is not None
        logit: Tensor = x @ (weight[1] - weight[0]) + (bias[1] - bias[0])
        return logit.view(*logit.shape[:2], self.grids[0], self.grids[0])

    def predict(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at context resolution (B, E, c, c), and the tokens of contexts and exemplars behind them."""
        context, exemplars = self.pixels(batch)
        with torch.no_grad():
            seen = self.encode(self.target, context, self.context_positions)
        shown = self.encode(self.online, exemplars.flatten(0, 1), self.exemplar_positions)
        shown = shown.view(*exemplars.shape[:2], *shown.shape[1:])
        decoded = self.decode(seen, shown).float()
        with torch.autocast(decoded.device.type, enabled=False):
            return self.upsampling @ decoded @ self.upsampling.T, seen, shown

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean over pixels and images, summed over exemplars; plus the weighted contrastive term if it is on."""
        logits, seen, shown = self.predict(batch)
        maps = correlation_maps(batch["boxes"], self.side, self.settings.context_size).to(logits.dtype)
        corr = F.binary_cross_entropy_with_logits(logits, maps) * self.settings.num_exemplars
        loss = self.settings.sigma_corr * corr
        if self.contrastive is None:
            return {"loss": loss}
        cont = self.contrastive(shown[:, :, 0], seen[:, 0])
        return {"loss": loss + self.settings.sigma_cont * cont, "correlation": corr, "contrastive": cont}

    def after_step(self, progress: float) -> None:
        """Move the target towards the online encoder."""
        momentum = cosine_momentum(progress, *self.settings.ema_momentum)
        ema_update(self.target, self.online, momentum)
        if self.contrastive is not None:
            self.contrastive.update(momentum)

    def prior(self) -> Tensor:
        """The map (c, c) that knows where regions tend to lie, and not which exemplar it is asked for."""
        return position_prior(self.side, self.settings.context_size, **self.settings.draws)

    @torch.no_grad()
    def held_out(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over maps of loss and of IoU at every threshold, of the model and of the prior."""
        logits = self.predict(batch)[0].flatten(0, 1)
        maps = correlation_maps(batch["boxes"], self.side, self.settings.context_size).flatten(0, 1)
        prior = self.prior().to(logits)
        loss = F.binary_cross_entropy_with_logits(logits, maps.float(), reduction="none").mean(dim=(-1, -2))
        return {
            "loss": loss.sum(),
            "iou": iou_by_threshold(logits.sigmoid(), maps),
            "prior_loss": cross_entropy(prior, maps).sum(),
            "prior_iou": iou_by_threshold(prior.expand_as(logits), maps),
            "maps": torch.tensor(float(len(maps))),
        }

    def held_out_metrics(self, sums: Mapping[str, Tensor], tuning: Mapping[str, Tensor]) -> dict[str, float]:
        """Loss as in training, and mean IoU of maps cut where training images have the most; of the prior likewise."""
        maps, exemplars = sums["maps"], self.settings.num_exemplars
        cut, prior_cut = int(tuning["iou"].argmax()), int(tuning["prior_iou"].argmax())
        return {
            "val_loss": float(sums["loss"] / maps) * exemplars,
            "val_reference_loss": float(sums["prior_loss"] / maps) * exemplars,
            "val_map_iou": float(sums["iou"][cut] / maps),
            "val_reference_map_iou": float(sums["prior_iou"][prior_cut] / maps),
            "val_map_threshold": cut / LEVELS,
        }

    def backbone_state(self, which: Literal["online", "ema"]) -> dict[str, Tensor]:
        """The online or the target encoder, each with the statistics of what it was shown."""
        return {**(self.online if which == "online" else self.target).state_dict(), **self.tokens.shared()}

    @torch.no_grad()
    def pictures(self, batch: Mapping[str, Tensor]) -> list[list[list[Panel | None]]]:
        """The context and its exemplars; below each its true and its predicted map; below the context the prior."""
        context, exemplars = self.pixels(batch)
        logits = self.predict(batch)[0]
        maps = correlation_maps(batch["boxes"], self.side, self.settings.context_size).float()
        prior = self.prior().to(logits)
        return [correlation_panels(*image, prior) for image in zip(context, exemplars, maps, logits, strict=True)]
