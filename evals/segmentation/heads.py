"""UPerNet's head, the auxiliary FCN head, and the feature pyramid of a ViT, as mmseg and its forks have them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLS = (1, 2, 3, 6)  # cells a side of the pyramid pooling (mmseg, configs/_base_/models/upernet_r50.py)
DROPOUT = 0.1  # of whole channels, before the last convolution (mmseg, decode_heads/decode_head.py)
AUXILIARY_CHANNELS = 256


class ViTPyramid(nn.ModuleList):
    """Maps of four blocks, all of stride 16, at strides 4, 8, 16 and 32.

    Source: microsoft/unilm, beit/semantic_segmentation/backbone/beit.py (``fpn1`` to ``fpn4``).

    Args:
        width: Channels of every map.
    """

    def __init__(self, width: int) -> None:
        def double() -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)

        super().__init__(
            [
                nn.Sequential(double(), nn.BatchNorm2d(width), nn.GELU(), double()),
                double(),
                nn.Identity(),
                nn.MaxPool2d(kernel_size=2, stride=2),
            ]
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (N, width, h, w) to (N, width, 4h, 4w), (.., 2h, 2w), (.., h, w) and (.., h / 2, w / 2)."""
        return [level(tokens) for level, tokens in zip(self, maps, strict=True)]


class ConvModule(nn.Sequential):
    """Convolution without bias, BatchNorm and ReLU, initialised as in mmcv (cnn/bricks/conv_module.py)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Classify(nn.Sequential):
    """Dropout of whole channels and a 1×1 convolution to classes, from N(0, 0.01)."""

    def __init__(self, channels: int, classes: int) -> None:
        conv = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.constant_(conv.bias, 0.0)  # type: ignore[arg-type]  # it has one
        super().__init__(nn.Dropout2d(DROPOUT), conv)


class UPerHead(nn.Module):
    """Pyramid pooling on the smallest map, a feature pyramid over all, and a class for every place of the largest.

    Source: open-mmlab/mmsegmentation, models/decode_heads/uper_head.py and psp_head.py, ``align_corners=False``.

    Args:
        widths: Channels of the maps, from the largest map to the smallest.
        channels: Of the head.
        classes: How many.
    """

    def __init__(self, widths: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        last = widths[-1]
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvModule(last, channels, 1)) for side in POOLS
        )
        self.bottleneck = ConvModule(last + len(POOLS) * channels, channels, 3)
        self.laterals = nn.ModuleList(ConvModule(width, channels, 1) for width in widths[:-1])
        self.smooth = nn.ModuleList(ConvModule(channels, channels, 3) for _ in widths[:-1])
        self.fuse = ConvModule(len(widths) * channels, channels, 3)
        self.classify = Classify(channels, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (N, classes, h, w) at the size of the first map."""
        smallest = maps[-1]
        pooled = [_resize(pool(smallest), smallest) for pool in self.pools]
        top = self.bottleneck(torch.cat([smallest, *pooled], dim=1))
        levels = [lateral(tokens) for lateral, tokens in zip(self.laterals, maps, strict=False)] + [top]
        for level in range(len(levels) - 1, 0, -1):
            levels[level - 1] = levels[level - 1] + _resize(levels[level], levels[level - 1])
        smoothed = [conv(tokens) for conv, tokens in zip(self.smooth, levels, strict=False)] + [top]
        fused = self.fuse(torch.cat([_resize(tokens, smoothed[0]) for tokens in smoothed], dim=1))
        logits: Tensor = self.classify(fused)
        return logits


class FCNHead(nn.Sequential):
    """One 3×3 convolution and a class for every place: the auxiliary head (mmseg, decode_heads/fcn_head.py)."""

    def __init__(self, width: int, classes: int, channels: int = AUXILIARY_CHANNELS) -> None:
        super().__init__(ConvModule(width, channels, 3), Classify(channels, classes))


def _resize(tokens: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(tokens, size=like.shape[2:], mode="bilinear", align_corners=False)
