"""Masked Autoencoders (He et al., CVPR 2022): hide most patches, encode the rest, predict the hidden pixels.

Numbers and names follow the public code, facebookresearch/mae, models_mae.py. Attention does not care for the order
of tokens: visible patches come first and hidden ones last, so that nothing is shuffled back, and only what the loss
reads is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from cim_bench.common.ranges import AreaRange, Positive
from cim_bench.contracts.pretext import Panel, Pretext
from cim_bench.models.backbone import create_meta_net
from cim_bench.models.positions import sincos_positions
from cim_bench.pretrain.blur import WIDTHS, blurred_copy
from cim_bench.pretrain.masks import (
    GREY,
    HiddenShare,
    MaskedInputs,
    MaskedModel,
    enlarge,
    mae_hidden,
    reconstruction_panels,
    split_mask,
)
from cim_bench.pretrain.vit import Width, check_heads, init_weights, patch_grid, plain_vit
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, Arch


@dataclass(frozen=True, kw_only=True)
class MAE(Pretext):
    """Masked Autoencoder: hide three quarters of the patches and predict their pixels.

    Attributes:
        mask_ratio: Share of patches that are hidden.
        norm_pix_loss: Predict the pixels of each patch relative to its own mean and standard deviation.
        decoder_dim: Width of the decoder.
        decoder_depth: Its blocks.
        decoder_heads: Its attention heads.
        crop_scale: Area range of the random resized crop (bicubic).
    """

    method: ClassVar[str] = "MAE"
    version: ClassVar[int] = 1

    mask_ratio: HiddenShare = 0.75
    norm_pix_loss: bool = True
    decoder_dim: Width = 512
    decoder_depth: Positive = 8
    decoder_heads: Positive = 16
    crop_scale: AreaRange = (0.2, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.decoder_dim, self.decoder_heads, "MAE.decoder")

    def build(self, arch: Arch) -> MAEModel:
        """A freshly initialised model."""
        return MAEModel(self, arch)

    def inputs(self, arch: Arch) -> MaskedInputs:
        """What a loader worker does to one image."""
        patches = patch_grid(arch.image_size, arch, create_meta_net(arch, num_classes=0)) ** 2
        return MaskedInputs(
            arch.image_size,
            scale=self.crop_scale,
            interpolation=InterpolationMode.BICUBIC,
            cells=patches,
            hidden=mae_hidden(patches, self.mask_ratio),
        )


class MAEModel(MaskedModel):
    """Encoder of the visible patches, and a decoder that predicts the hidden ones.

    Args:
        settings: The pretext.
        arch: A plain timm ViT with class token.

    Raises:
        ValueError: If the architecture is not one, or sizes do not divide.
    """

    decoder_positions: Tensor
    pixel: Tensor

    def __init__(self, settings: MAE, arch: Arch) -> None:
        super().__init__()
        self.settings = settings
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD
        self.encoder: Any = plain_vit(arch, MAE.method)
        self.patch, grid = int(self.encoder.patch_embed.patch_size[0]), patch_grid(arch.image_size, arch, self.encoder)
        self.hidden = mae_hidden(grid**2, settings.mask_ratio)
        width, heads = settings.decoder_dim, settings.decoder_heads
        self.decoder_embed = nn.Linear(self.encoder.embed_dim, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.decoder_blocks: Any = nn.Sequential(
            *(Block(width, heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm) for _ in range(settings.decoder_depth))
        )
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_pred = nn.Linear(width, 3 * self.patch**2)
        self.register_buffer("decoder_positions", sincos_positions(width, grid)[0, 1:], persistent=False)
        self.register_buffer("pixel", torch.tensor([self.mean, self.std]), persistent=False)
        initialise_mae(self, grid)

    def encode(self, patches: Tensor, places: Tensor) -> Tensor:
        """Tokens (B, 1 + K, D) of some patches.

        Args:
            patches: (B, K, 3 p²) normalised pixels, as `to_patches` orders them.
            places: (B, K) which patches of the image they are.
        """
        net = self.encoder
        weight = net.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)  # the convolution, on pixels in our order
        x = F.linear(patches, weight, net.patch_embed.proj.bias) + net.pos_embed[0, 1:][places]
        first = (net.cls_token + net.pos_embed[:, :1]).expand(len(x), -1, -1)
        tokens: Tensor = net.norm(net.blocks(torch.cat([first, x], dim=1)))
        return tokens

    def decode(self, tokens: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Tokens of the class and of the visible patches to predictions (B, H, 3 p²) for the hidden ones."""
        x = self.decoder_embed(tokens)
        seen = x[:, 1:] + self.decoder_positions[visible]
        wanted = self.mask_token + self.decoder_positions[hidden]
        x = self.decoder_blocks(torch.cat([x[:, :1], seen, wanted], dim=1))  # the class token's position is 0
        predicted: Tensor = self.decoder_pred(self.decoder_norm(x[:, -hidden.shape[1] :]))
        return predicted

    def normalise(self, patches: Tensor) -> Tensor:
        """uint8 patches (B, K, 3 p²) to the encoder's input space."""
        return ((by_colour(patches).float() / 255 - self.pixel[0]) / self.pixel[1]).flatten(-2)

    def predict(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions for the hidden patches, their normalised pixels, and those of the visible ones."""
        patches = to_patches(batch["image"], self.patch)
        visible, hidden = split_mask(batch["mask"], self.hidden)
        seen, wanted = (self.normalise(_take(patches, places)) for places in (visible, hidden))
        return self.decode(self.encode(seen, visible), visible, hidden).float(), wanted, seen

    def target(self, pixels: Tensor) -> Tensor:
        """Prediction targets of patches (B, H, 3 p²): their pixels, normalised by patch if the settings say so."""
        if not self.settings.norm_pix_loss:
            return pixels
        mean, std = patch_statistics(pixels)
        return (pixels - mean) / std

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Squared error, mean over the pixels of all hidden patches."""
        predicted, wanted, _ = self.predict(batch)
        return {"loss": (predicted - self.target(wanted)).square().mean()}

    @torch.no_grad()
    def held_out(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over images of the loss, of that of a constant, and of products that give that of a blurred copy.

        The constant is 0 for pixels relative to their patch, else the mean colour of the image's visible patches.
        """
        predicted, wanted, seen = self.predict(batch)
        target, colour = self.target(wanted), by_colour(seen).mean(dim=(1, 2))
        flat = torch.zeros(()) if self.settings.norm_pix_loss else colour.repeat(1, self.patch**2)[:, None]
        flat, copies = flat.to(target), self.copies(batch)
        return {
            "loss": (predicted - target).square().mean(dim=(1, 2)).sum(),
            "constant": (target - flat).square().mean(dim=(1, 2)).sum(),
            "cross": torch.stack([((target - flat) * (copy - flat)).mean(dim=(1, 2)).sum() for copy in copies]),
            "power": torch.stack([(copy - flat).square().mean(dim=(1, 2)).sum() for copy in copies]),
            "images": torch.tensor(float(len(target))),
        }

    def copies(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """The hidden patches of blurred copies, as targets (B, H, 3 p²): one for each width of the blur."""
        grid = batch["image"].shape[-1] // self.patch
        images = (batch["image"].float() / 255 - self.pixel[0].view(3, 1, 1)) / self.pixel[1].view(3, 1, 1)
        hidden = enlarge(batch["mask"].view(-1, grid, grid), self.patch)[:, None]
        places = split_mask(batch["mask"], self.hidden)[1]
        blurred = [blurred_copy(images, hidden, width * self.patch) for width in WIDTHS]
        return [self.target(_take(to_patches(copy, self.patch), places)) for copy in blurred]

    def blurred_losses(self, sums: Mapping[str, Tensor], tuning: Mapping[str, Tensor]) -> Tensor:
        """That of flat + a · (copy - flat), a by least squares on the training images: 0 would be the constant."""
        scale = tuning["cross"] / tuning["power"].clamp(min=1e-12)
        return sums["constant"] - 2 * scale * sums["cross"] + scale**2 * sums["power"]

    def network(self) -> nn.Module:
        """The encoder."""
        net: nn.Module = self.encoder
        return net

    @torch.no_grad()
    def pictures(self, batch: Mapping[str, Tensor]) -> list[list[list[Panel | None]]]:
        """The image, what is visible of it, and the visible patches with the predicted ones between them.

        Predictions relative to a patch are shown with the true mean and standard deviation of that patch.
        """
        predicted, wanted, _ = self.predict(batch)
        losses = (predicted - self.target(wanted)).square().mean(dim=(1, 2))
        if self.settings.norm_pix_loss:
            mean, std = patch_statistics(wanted)
            predicted = predicted * std + mean
        pixels = by_colour(predicted) * self.pixel[1] + self.pixel[0]
        painted = (pixels.flatten(-2) * 255).round().clamp(0, 255).to(torch.uint8)
        patches = to_patches(batch["image"], self.patch)
        places = split_mask(batch["mask"], self.hidden)[1][..., None].expand_as(painted)
        shown, rebuilt = (
            from_patches(patches.scatter(1, places, filling), self.patch)
            for filling in (torch.full_like(painted, GREY), painted)
        )
        return reconstruction_panels(batch["image"], shown, rebuilt, self.hidden / patches.shape[1], losses)


def to_patches(images: Tensor, patch: int) -> Tensor:
    """(B, 3, S, S) to (B, (S / p)², 3 p²), row-major; pixels by row, column, channel as in the public code."""
    grid = images.shape[-1] // patch
    return images.reshape(-1, 3, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1).reshape(len(images), grid**2, -1)


def from_patches(patches: Tensor, patch: int) -> Tensor:
    """The inverse of `to_patches`."""
    grid = math.isqrt(patches.shape[1])
    cells = patches.reshape(-1, grid, grid, patch, patch, 3)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), 3, grid * patch, grid * patch)


def by_colour(patches: Tensor) -> Tensor:
    """(B, K, 3 p²) to (B, K, p², 3)."""
    return patches.reshape(*patches.shape[:-1], -1, 3)


def patch_statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and standard deviation of the unbiased variance + 1e-6, of each patch (models_mae.py, forward_loss)."""
    return pixels.mean(dim=-1, keepdim=True), (pixels.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def initialise_mae(model: MAEModel, grid: int) -> None:
    """Xavier linears, also for the patch projection; N(0, 0.02) tokens; fixed sin-cos positions."""
    model.apply(init_weights)
    net, proj = model.encoder, model.encoder.patch_embed.proj
    nn.init.xavier_uniform_(proj.weight.view(len(proj.weight), -1))
    bound = proj.weight[0].numel() ** -0.5  # the public code leaves torch's default for a convolution's bias
    nn.init.uniform_(proj.bias, -bound, bound)
    for token in (net.cls_token, model.mask_token):
        nn.init.normal_(token, std=0.02)
    net.pos_embed.data.copy_(sincos_positions(net.embed_dim, grid))
    net.pos_embed.requires_grad_(False)


def _take(patches: Tensor, places: Tensor) -> Tensor:
    """Patches (B, L, P) at places (B, K)."""
    return patches.gather(1, places[..., None].expand(-1, -1, patches.shape[-1]))
