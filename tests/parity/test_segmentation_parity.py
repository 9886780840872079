"""UPerNet's heads against transformers' (``pip install transformers``), with their weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cim_bench.evals.segmentation.heads import POOLS, ConvModule, FCNHead, UPerHead

transformers = pytest.importorskip("transformers")
upernet = pytest.importorskip("transformers.models.upernet.modeling_upernet")
WIDTHS, CHANNELS, CLASSES, TOLERANCE = [24, 32, 40, 48], 16, 7, 1e-5


def config() -> object:
    return transformers.UperNetConfig(
        backbone_config=transformers.ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"]),
        hidden_size=CHANNELS,
        pool_scales=list(POOLS),
        num_labels=CLASSES,
        auxiliary_channels=20,
        auxiliary_in_channels=WIDTHS[2],
    )


def randomised(module: nn.Module) -> nn.Module:
    """Weights and statistics that nothing is invariant to."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            low, high = (0.5, 1.5) if name.endswith("running_var") else (-0.3, 0.3)
            value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return module.eval()


def copy_conv(own: nn.Module, theirs: nn.Module) -> None:
    assert isinstance(own, ConvModule)
    own[0].load_state_dict(theirs.conv.state_dict())
    own[1].load_state_dict(theirs.batch_norm.state_dict())


def feature_maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, w, 24 // 2**i, 32 // 2**i, generator=generator) for i, w in enumerate(WIDTHS)]


def test_upernet_head() -> None:
    theirs = randomised(upernet.UperNetHead(config(), in_channels=WIDTHS))
    own = UPerHead(WIDTHS, CHANNELS, CLASSES)
    for pool, block in zip(own.pools, theirs.psp_modules.blocks, strict=True):
        copy_conv(pool[1], block.layers[1])
    copy_conv(own.bottleneck, theirs.bottleneck)
    for name, convs in (("laterals", theirs.lateral_convs), ("smooth", theirs.fpn_convs)):
        for mine, conv in zip(getattr(own, name), convs, strict=True):
            copy_conv(mine, conv)
    copy_conv(own.fuse, theirs.fpn_bottleneck)
    own.classify[1].load_state_dict(theirs.classifier.state_dict())
    maps = feature_maps()
    with torch.no_grad():
        torch.testing.assert_close(own.eval()(maps), theirs(list(maps)), atol=TOLERANCE, rtol=TOLERANCE)


def test_auxiliary_head() -> None:
    theirs = randomised(upernet.UperNetFCNHead(config(), in_channels=WIDTHS))
    own = FCNHead(WIDTHS[2], CLASSES, channels=20)
    copy_conv(own[0], theirs.convs[0])
    own[1][1].load_state_dict(theirs.classifier.state_dict())
    maps = feature_maps()
    with torch.no_grad():
        torch.testing.assert_close(own.eval()(maps[2]), theirs(maps), atol=TOLERANCE, rtol=TOLERANCE)
