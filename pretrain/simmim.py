"""SimMIM (Xie et al., CVPR 2022): hide squares of the image, predict their pixels with a one-layer head.

Numbers and names follow the public code, microsoft/SimMIM, models/simmim.py. Three families of encoders, each with
its own way to hide a square: BEiT with a shared relative position bias (the published one), plain ViTs with fixed
sin-cos positions (like for like with MAE and CIM), and ResNets (ours; docs/pretexts/simmim.md says why so).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from cim_bench.common.ranges import AreaRange, Pixels, Rate
from cim_bench.contracts.pretext import Panel, Pretext
from cim_bench.models.backbone import create_net
from cim_bench.models.positions import sincos_positions
from cim_bench.pretrain.blur import WIDTHS, blurred_copy, mean_colour
from cim_bench.pretrain.masks import (
    GREY,
    HiddenShare,
    MaskedInputs,
    MaskedModel,
    enlarge,
    reconstruction_panels,
    simmim_hidden,
)
from cim_bench.pretrain.vit import patch_grid, plain_vit
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, Arch


@dataclass(frozen=True, kw_only=True)
class SimMIM(Pretext):
    """SimMIM: hide 60 % of the image in large squares and predict their pixels with one linear layer.

    Attributes:
        mask_patch: Pixels a side of a hidden square; a multiple of a ViT's patch.
        mask_ratio: Share of squares that are hidden.
        crop_scale: Area range of the random resized crop (bilinear).
        drop_path: Largest rate of stochastic depth, in the last block.
    """

    method: ClassVar[str] = "SimMIM"
    version: ClassVar[int] = 2

    mask_patch: Pixels = 32
    mask_ratio: HiddenShare = 0.6
    crop_scale: AreaRange = (0.67, 1.0)
    drop_path: Rate = 0.1

    def build(self, arch: Arch) -> SimMIMModel:
        """A freshly initialised model."""
        return SimMIMModel(self, arch)

    def inputs(self, arch: Arch) -> MaskedInputs:
        """What a loader worker does to one image."""
        cells = self.grid(arch) ** 2
        return MaskedInputs(
            arch.image_size,
            scale=self.crop_scale,
            interpolation=InterpolationMode.BILINEAR,
            cells=cells,
            hidden=simmim_hidden(cells, self.mask_ratio),
        )

    def grid(self, arch: Arch) -> int:
        """Squares a side of an image.

        Raises:
            ValueError: If they do not fill it.
        """
        if arch.image_size % self.mask_patch:
            raise ValueError(
                f"an image of {arch.image_size} pixels does not divide into squares of mask_patch {self.mask_patch}; "
                f"choose a divisor"
            )
        return arch.image_size // self.mask_patch


class SimMIMModel(MaskedModel):
    """An encoder of images with hidden squares, and a one-layer head that predicts pixels.

    Args:
        settings: The pretext.
        arch: A timm BEiT, plain ViT or ResNet.

    Raises:
        ValueError: If the architecture is none of them, or sizes do not divide.
    """

    pixel: Tensor

    def __init__(self, settings: SimMIM, arch: Arch) -> None:
        super().__init__()
        self.settings, self.grid = settings, settings.grid(arch)
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD
        simmim_hidden(self.grid**2, settings.mask_ratio)
        self.encoder = masked_encoder(settings, arch)
        stride = self.encoder.stride
        head = nn.Conv2d(self.encoder.dim, 3 * stride**2, kernel_size=1)  # the public code leaves torch's defaults
        self.decoder = nn.Sequential(head, nn.PixelShuffle(stride))
        self.register_buffer("pixel", torch.tensor([self.mean, self.std]).view(2, 1, 3, 1, 1), persistent=False)

    def predict(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted and normalised true images (B, 3, S, S), and the hidden pixels (B, 1, S, S) bool."""
        images = (batch["image"].float() / 255 - self.pixel[0]) / self.pixel[1]
        mask = batch["mask"].view(-1, self.grid, self.grid)
        predicted = self.decoder(self.encoder(images, mask)).float()
        return predicted, images, enlarge(mask, self.settings.mask_patch)[:, None]

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Absolute error, mean over hidden pixels and channels (with the public code's 1e-5 in the divisor)."""
        predicted, images, mask = self.predict(batch)
        return {"loss": ((predicted - images).abs() * mask).sum() / (mask.sum() + 1e-5) / 3}

    @torch.no_grad()
    def held_out(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over images of the loss, and of those of their visible pixels' mean colour and of blurred copies."""
        predicted, images, mask = self.predict(batch)
        copies = [blurred_copy(images, mask, width * self.settings.mask_patch) for width in WIDTHS]
        return {
            "loss": _errors(predicted, images, mask).sum(),
            "constant": _errors(mean_colour(images, mask), images, mask).sum(),
            "blurred": torch.stack([_errors(copy, images, mask).sum() for copy in copies]),
            "images": torch.tensor(float(len(images))),
        }

    def blurred_losses(self, sums: Mapping[str, Tensor], tuning: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """Nothing but the blur's width is fitted."""
        return sums["blurred"]

    def network(self) -> nn.Module:
        """The encoder."""
        net: nn.Module = self.encoder.net
        return net

    @torch.no_grad()
    def pictures(self, batch: Mapping[str, Tensor]) -> list[list[list[Panel | None]]]:
        """The image, what is visible of it, and the visible pixels with the predicted ones between them."""
        predicted, images, mask = self.predict(batch)
        painted = ((predicted * self.pixel[1] + self.pixel[0]) * 255).round().clamp(0, 255).to(torch.uint8)
        shown, rebuilt = (
            torch.where(mask, filling, batch["image"]) for filling in (torch.full_like(painted, GREY), painted)
        )
        share = float(batch["mask"].float().mean())
        return reconstruction_panels(batch["image"], shown, rebuilt, share, _errors(predicted, images, mask))


class MaskedEncoder(nn.Module):
    """A timm network that sees an image whose hidden squares were replaced.

    Args:
        net: The network, without head.
        dim: Channels of its feature map.
        stride: Pixels of the image a side of one cell of that map.
    """

    def __init__(self, net: Any, *, dim: int, stride: int) -> None:
        super().__init__()
        self.net, self.dim, self.stride = net, dim, stride

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Feature map (B, dim, S / stride, S / stride).

        Args:
            images: (B, 3, S, S), normalised.
            mask: (B, g, g) bool, true for hidden squares.
        """
        raise NotImplementedError


class MaskedViT(MaskedEncoder):
    """A ViT or BEiT: one learned token stands for every hidden patch.

    Args:
        net: With class token and final norm.
        grid: Patches a side.
        patch: Pixels a side of a patch.
    """

    def __init__(self, net: Any, grid: int, patch: int) -> None:
        super().__init__(net, dim=net.embed_dim, stride=patch)
        self.grid = grid
        self.mask_token = nn.Parameter(torch.empty(1, 1, net.embed_dim))
        _trunc_normal(self.mask_token)
        initialise_simmim_vit(net, grid)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Feature map of the patch tokens after the final norm."""
        x = self.net.patch_embed(images)
        hidden = enlarge(mask, self.grid // mask.shape[1]).flatten(1)[..., None]
        x = torch.where(hidden, self.mask_token, x)
        x = torch.cat([self.net.cls_token.expand(len(x), -1, -1), x], dim=1)
        if self.net.pos_embed is not None:
            x = x + self.net.pos_embed
        tokens: Tensor = self.net.norm(self.blocks(x))
        return tokens[:, 1:].transpose(1, 2).reshape(len(x), self.dim, self.grid, self.grid)

    def blocks(self, x: Tensor) -> Any:
        """All blocks."""
        return self.net.blocks(x)


class MaskedBEiT(MaskedViT):
    """Blocks that add one relative position bias, shared by all of them, to their attention."""

    def blocks(self, x: Tensor) -> Any:
        """All blocks."""
        bias = self.net.rel_pos_bias() if self.net.rel_pos_bias is not None else None
        for block in self.net.blocks:
            x = block(x, shared_rel_pos_bias=bias)
        return x


class MaskedResNet(MaskedEncoder):
    """A ResNet: one learned colour, at first the mean colour, is painted over the hidden squares.

    Args:
        net: With ``forward_features``.
        stride: Of its last feature map.
    """

    def __init__(self, net: Any, stride: int) -> None:
        super().__init__(net, dim=net.num_features, stride=stride)
        self.mask_colour = nn.Parameter(torch.zeros(3))

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """The last feature map."""
        hidden = enlarge(mask, images.shape[-1] // mask.shape[1])[:, None]
        features: Tensor = self.net.forward_features(torch.where(hidden, self.mask_colour.view(3, 1, 1), images))
        return features


def masked_encoder(settings: SimMIM, arch: Arch) -> MaskedEncoder:
    """The encoder of an architecture's family.

    Raises:
        ValueError: If it is of no such family, or sizes do not divide.
    """
    arch = replace(arch, options={**arch.options, "drop_path_rate": settings.drop_path})
    if arch.name.startswith("resnet"):
        net = create_net(arch, num_classes=0)
        stride = int(net.feature_info[-1]["reduction"])
        if arch.image_size % stride:
            raise ValueError(
                f"size {arch.image_size} does not divide by the stride of {stride} pixels of {arch.name}; "
                "choose a multiple"
            )
        return MaskedResNet(net, stride)
    beit = arch.name.startswith(("beit_", "beitv2_"))
    net = create_net(arch, num_classes=0) if beit else plain_vit(arch, SimMIM.method)
    if isinstance(net.norm, nn.Identity):
        raise ValueError(f"SimMIM trains the final norm, which {arch} lacks; add the option global_pool=token")
    patch, grid = int(net.patch_embed.patch_size[0]), patch_grid(arch.image_size, arch, net)
    if settings.mask_patch % patch:
        raise ValueError(
            f"mask_patch {settings.mask_patch} does not divide by the patch of {patch} pixels of {arch.name}; "
            "choose a multiple"
        )
    return MaskedBEiT(net, grid, patch) if beit else MaskedViT(net, grid, patch)


def initialise_simmim_vit(net: Any, grid: int) -> None:
    """Truncated normal weights, zero biases, unit norms; in block i, each branch's last layer is divided by √(2 i).

    Positions, where there are any, are fixed sin-cos (ours: the published model has none but the relative bias).
    Source: microsoft/SimMIM, models/vision_transformer.py.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            _trunc_normal(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    _trunc_normal(net.cls_token)
    for i, block in enumerate(net.blocks, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.data.div_(math.sqrt(2 * i))
    if net.pos_embed is not None:
        net.pos_embed.data.copy_(sincos_positions(net.embed_dim, grid))
        net.pos_embed.requires_grad_(False)


def _trunc_normal(tensor: Tensor) -> None:
    """N(0, 0.02), cut off at one standard deviation (models/simmim.py, VisionTransformerForSimMIM)."""
    nn.init.trunc_normal_(tensor, std=0.02, a=-0.02, b=0.02)


def _errors(predicted: Tensor, images: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean absolute error over the hidden pixels of each image."""
    error = ((predicted - images).abs() * mask).sum(dim=(1, 2, 3))
    return error / (3 * mask.sum(dim=(1, 2, 3)))
