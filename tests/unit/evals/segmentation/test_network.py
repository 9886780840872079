"""UPerNet on ViTs and ResNets: parameter counts of the published networks, shapes, and what is added to a ViT."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cim_bench.evals.classifier import body
from cim_bench.evals.segmentation.network import UPerNet, add_relative_bias
from cim_bench.models.backbone import Backbone
from cim_bench.models.sizing import at_size
from cim_bench.spec import Arch

VIT = Arch(name="vit_base_patch16_224")
BEIT = Arch(name="beit_base_patch16_224", options={"use_shared_rel_pos_bias": True, "use_rel_pos_bias": False})
TINY = Arch(name="vit_tiny_patch16_224", image_size=64, options={"embed_dim": 24, "depth": 4, "num_heads": 2})


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def published(arch: Arch, *, channels: int = 768, added: bool = False) -> UPerNet:
    """The network of the published recipes at 512 pixels, with relative positions and layer scale or without."""
    args = {"init_values": 1.0} if added else {}
    backbone = body(at_size(Backbone(arch), 512), args, added=("gamma",) if added else ())
    if added:
        add_relative_bias(backbone)
    return UPerNet(backbone, blocks=(3, 5, 7, 11), channels=channels, classes=150)


def test_parameter_counts_are_those_of_the_public_code() -> None:
    # implus/mae_segmentation @772c0c1 and microsoft/unilm @768a3c87, computed from their layers
    network = published(VIT)
    assert (count(network.head), count(network.auxiliary), count(network.pyramid)) == (67_963_542, 1_808_534, 7_081_728)
    assert count(network) == 163_286_828
    assert count(published(VIT, added=True)) == 163_877_228
    assert count(published(VIT, channels=512, added=True)) == 128_246_636
    assert count(published(BEIT)) == 163_080_812


def test_tokens_are_raw_and_at_four_strides() -> None:
    network = UPerNet(body(Backbone(TINY), {}), blocks=(0, 1, 2, 3), channels=8, classes=5).eval()
    images = torch.rand(2, 3, 64, 64)
    assert [tuple(level.shape) for level in network.maps(images)] == [(2, 24, s, s) for s in (16, 8, 4, 2)]
    assert network(images).shape == (2, 5, 16, 16)
    tokens = network.backbone.net.patch_embed(network.backbone.normalize(images))
    tokens = network.backbone.net._pos_embed(tokens)
    for block in network.backbone.net.blocks[:3]:
        tokens = block(tokens)
    raw = tokens[:, 1:].transpose(1, 2).reshape(2, 24, 4, 4)
    torch.testing.assert_close(network.maps(images)[2], raw)


def test_a_resnet_gives_its_stages() -> None:
    network = UPerNet(body(Backbone(Arch(name="resnet18")), {}), blocks=(3, 5, 7, 11), channels=8, classes=5).eval()
    assert [level.shape[1] for level in network.maps(torch.rand(1, 3, 64, 64))] == [64, 128, 256, 512]
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 5, 16, 16)


def test_later_blocks_are_removed() -> None:
    network = UPerNet(body(Backbone(TINY), {}), blocks=(0, 0, 1, 2), channels=8, classes=5)
    assert len(network.backbone.net.blocks) == 3


def test_what_is_added_begins_without_effect() -> None:
    model = Backbone(TINY).eval()
    images = torch.rand(2, 3, 64, 64)
    before = model.token_maps(images, norm=False)[0]
    extended = body(model, {"init_values": 1.0}, added=("gamma",))
    add_relative_bias(extended)
    torch.testing.assert_close(extended.eval().token_maps(images, norm=False)[0], before, atol=1e-5, rtol=1e-5)


def test_relative_positions_are_those_of_beit() -> None:
    """A ViT with the added table and no absolute positions, against timm's BEiT with the same weights."""
    arch = Arch(name="beit_base_patch16_224", image_size=64, options={"embed_dim": 24, "depth": 1, "num_heads": 2})
    beit = Backbone(arch).eval()
    block = beit.net.blocks[0]
    nn.init.normal_(block.attn.relative_position_bias_table)
    vit = Backbone(Arch(name=TINY.name, image_size=64, options={**TINY.options, "depth": 1})).eval()
    add_relative_bias(vit)
    attention = vit.net.blocks[0].attn
    attention.qkv.weight.data = block.attn.qkv.weight.data
    attention.qkv.bias.data = torch.cat([block.attn.q_bias, torch.zeros(24), block.attn.v_bias])
    attention.proj.load_state_dict(block.attn.proj.state_dict())
    attention.rel_pos.relative_position_bias_table.data = block.attn.relative_position_bias_table.data
    tokens = torch.randn(2, 17, 24)
    torch.testing.assert_close(attention(tokens), block.attn(tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("arch", [BEIT, Arch(name="resnet18")])
def test_networks_that_take_no_relative_positions_are_refused(arch: Arch) -> None:
    with pytest.raises(ValueError, match="set relative_bias to False"):
        add_relative_bias(Backbone(arch))


def test_a_network_without_patch_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="has no maps of patch tokens; give a ViT or a ResNet"):
        Backbone(Arch(name="convnext_atto")).token_maps(torch.rand(1, 3, 224, 224), norm=False)
