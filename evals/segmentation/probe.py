"""A linear head on frozen patch tokens: the network, its loss, and kept tokens as training samples."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cim_bench.data.segmentation import IGNORED, SegmentationSet
from cim_bench.engine.features import SetFeatures
from cim_bench.evals.segmentation.upernet import pixel_loss
from cim_bench.models.backbone import Backbone
from cim_bench.models.sizing import patch_size


class LinearSegmenter(nn.Module):
    """A frozen backbone under BatchNorm and a 1×1 convolution from N(0, 0.01).

    Source: facebookresearch/dinov2, eval/segmentation/models: ``BNHead`` (decode_heads/linear_head.py) on mmseg's
    ``BaseDecodeHead``, ``resize_concat`` of several maps.

    Args:
        backbone: Of the size of a window, rounded up to whole patches.
        blocks: Whose tokens are concatenated; none for the last.
        norm: Whether tokens pass the final norm.
        classes: How many.
    """

    def __init__(self, backbone: Backbone, *, blocks: tuple[int, ...], norm: bool, classes: int) -> None:
        super().__init__()
        self.backbone, self.blocks, self.norm = backbone.requires_grad_(False).eval(), blocks, norm
        with torch.no_grad():
            side = backbone.arch.image_size
            width = self.tokens(torch.zeros(1, 3, side, side, device=backbone.mean.device)).shape[1]
        classify = nn.Conv2d(width, classes, 1)
        nn.init.normal_(classify.weight, std=0.01)
        nn.init.zeros_(classify.bias)  # type: ignore[arg-type]  # a convolution has one by default
        self.head = nn.Sequential(nn.BatchNorm2d(width), classify)

    def train(self, mode: bool = True) -> Self:
        """Only the head has a mode: statistics of a frozen ResNet stay."""
        super().train(mode)
        self.backbone.eval()
        return self

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens (N, width, h, w) of images (N, 3, H, W) in [0, 1], which are padded on all sides to whole patches.

        Source: facebookresearch/dinov2, ``CenterPadding`` of its notebook semantic_segmentation.ipynb.
        """
        patch = patch_size(self.backbone)
        pads = [extra for side in (images.shape[3], images.shape[2]) for extra in _around(-side % patch)]
        centred = F.pad(images - self.backbone.mean, pads)  # what is 0 here is 0 after normalisation
        maps = self.backbone.token_maps(centred + self.backbone.mean, self.blocks or None, norm=self.norm)
        size = maps[0].shape[2:]
        return torch.cat([F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in maps], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes, h, w)."""
        logits: Tensor = self.head(self.tokens(images))
        return logits


class SegmentationProbe(nn.Module):
    """A `LinearSegmenter` with its loss, whose head sees the whole effective batch: SyncBN on any machine.

    Args:
        network: What is trained.
    """

    def __init__(self, network: LinearSegmenter) -> None:
        super().__init__()
        self.network = network

    def frozen_features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tokens and masks of one pass, of images unless tokens were made before."""
        tokens = batch["tokens"] if "tokens" in batch else self.network.tokens(batch["image"].float() / 255)
        return {"tokens": tokens.float(), "mask": batch["mask"]}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of tokens (B, D, h, w) and masks (B, c, c): the mean over all pixels, unlabelled ones count as 0.

        Logits at the masks' size are made image by image, and again for the gradient: all at once would be gigabytes.
        """
        logits, masks = self.network.head(batch["tokens"]).float(), batch["mask"].long()
        losses = [checkpoint(_loss, *pair, use_reentrant=False) for pair in zip(logits, masks, strict=True)]
        with torch.no_grad():
            small = F.interpolate(batch["mask"][:, None].float(), size=logits.shape[2:], mode="nearest-exact")[:, 0]
            labelled = small != IGNORED
            right = ((logits.argmax(dim=1) == small) & labelled).sum() / labelled.sum().clamp_min(1)
        return {"loss": torch.stack(losses).mean(), "patch_accuracy": right}


class KeptTokens(torch.utils.data.Dataset[dict[str, Any]]):
    """Kept tokens and masks as training samples.

    Args:
        images: What they are of.
        found: Of these images.
    """

    def __init__(self, images: SegmentationSet, found: SetFeatures) -> None:
        self.images, self.found = images, found

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        index = where[1]
        tokens, mask = (torch.from_numpy(np.array(rows[index])) for rows in self.found)
        return {"tokens": tokens, "mask": mask, "index": index}

    def image_id(self, index: int) -> str:
        """The image's name."""
        return self.images.image_id(index)


def _loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Of one image: (classes, h, w) and (H, W)."""
    whole = F.interpolate(logits[None], size=mask.shape, mode="bilinear", align_corners=False)
    return pixel_loss(whole, mask[None], "all")


def _around(extra: int) -> tuple[int, int]:
    return extra // 2, extra - extra // 2
