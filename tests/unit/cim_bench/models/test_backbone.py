from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cim_bench.models.backbone import Backbone, create_net, load_backbone
from cim_bench.models.checkpoint import Checkpoint, Meta, load_checkpoint, save_checkpoint
from cim_bench.models.key_contract import load_exact
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, Arch, Data


@pytest.fixture
def images(small_photos: Data) -> Tensor:
    files = sorted(Path(small_photos.root, "val").rglob("*.jpg"))[::6]
    pixels = [np.array(Image.open(file).resize((32, 32))) for file in files]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


def vit(**options: Any) -> Arch:
    known = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    return Arch(name="vit_tiny_patch16_224", image_size=32, options=known | options)


@pytest.mark.parametrize(
    ("mean", "std"), [(IMAGENET_MEAN, IMAGENET_STD), ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3)), ((0.0,) * 3, (1.0,) * 3)]
)
@torch.no_grad()
def test_the_normalisation_is_inside(tiny_arch: Arch, images: Tensor, mean: Any, std: Any) -> None:
    model = Backbone(tiny_arch, mean=mean, std=std, num_classes=4).eval()
    by_hand = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(model(images), model.net(by_hand))
    assert model(images).shape == (4, 4)


def test_the_normalisation_is_not_part_of_the_weights(tiny_arch: Arch) -> None:
    model = Backbone(tiny_arch)
    assert all(name.startswith("net.") for name in model.state_dict())
    assert {name.removeprefix("net.") for name in model.state_dict()} == model.net.state_dict().keys()


@torch.no_grad()
def test_features_of_a_vit(images: Tensor) -> None:
    model = Backbone(vit()).eval()
    tokens = model.net.forward_features(model.normalize(images))
    assert tokens.shape == (4, 17, 48)
    torch.testing.assert_close(model.feature(images, "cls"), tokens[:, 0])
    torch.testing.assert_close(model.feature(images, "mean_patch"), tokens[:, 1:].sum(dim=1) / 16)
    torch.testing.assert_close(model.feature(images, "cls"), model(images))
    with pytest.raises(ValueError, match=r"vit_tiny_patch16_224 has no 'pool' feature; .* \(4, 17, 48\)"):
        model.feature(images, "pool")


@torch.no_grad()
def test_registers_are_not_patches(images: Tensor) -> None:
    model = Backbone(vit(reg_tokens=4)).eval()
    tokens = model.net.forward_features(model.normalize(images))
    assert tokens.shape == (4, 1 + 4 + 16, 48)
    torch.testing.assert_close(model.feature(images, "mean_patch"), tokens[:, 5:].mean(dim=1))
    torch.testing.assert_close(model.feature(images, "cls"), tokens[:, 0])


@torch.no_grad()
def test_a_vit_without_class_token_has_no_cls_feature(images: Tensor) -> None:
    model = Backbone(vit(class_token=False, global_pool="avg", fc_norm=False)).eval()
    assert model.feature(images, "mean_patch").shape == (4, 48)
    with pytest.raises(ValueError, match="has no 'cls' feature"):
        model.feature(images, "cls")


@torch.no_grad()
def test_a_norm_of_pooled_patches_is_the_final_norm(images: Tensor) -> None:
    """BEiT as its hub weights have it: timm classifies the norm of the mean; its class token has none."""
    arch = Arch(name="beit_base_patch16_224", image_size=32, options={**vit().options, "use_rel_pos_bias": True})
    model = Backbone(arch).eval()
    torch.nn.init.normal_(model.net.fc_norm.weight)
    torch.testing.assert_close(model.feature(images, "mean_patch"), model(images))
    with pytest.raises(ValueError, match="normalises pooled patches alone; take the feature mean_patch"):
        model.feature(images, "cls")


@torch.no_grad()
def test_a_register_is_no_class_token(images: Tensor) -> None:
    model = Backbone(vit(class_token=False, reg_tokens=2, global_pool="avg", fc_norm=False)).eval()
    with pytest.raises(ValueError, match="has no 'cls' feature"):
        model.feature(images, "cls")


@pytest.mark.parametrize(
    "arch",
    [
        Arch(name="resnet18"),
        Arch(name="convnext_atto"),
        Arch(name="swin_tiny_patch4_window7_224", options={"img_size": 56, "embed_dim": 24}),
    ],
    ids=lambda arch: arch.name,
)
@torch.no_grad()
def test_the_pooled_feature_is_the_one_that_timm_classifies(arch: Arch, images: Tensor) -> None:
    model = Backbone(arch).eval()
    larger = torch.nn.functional.interpolate(images, size=56)
    feature = model.feature(larger, "pool")
    assert feature.shape == (4, model.net.num_features)
    torch.testing.assert_close(feature, model(larger))
    with pytest.raises(ValueError, match="has no 'cls' feature"):
        model.feature(larger, "cls")
    with pytest.raises(ValueError, match="has no 'mean_patch' feature"):
        model.feature(larger, "mean_patch")


def test_an_unknown_architecture_lists_near_names() -> None:
    with pytest.raises(ValueError, match=r"no architecture 'vit_smal_patch16_224'; .* vit_small_patch16_224"):
        create_net(Arch(name="vit_smal_patch16_224"))
    with pytest.raises(ValueError, match=r"near ones are .*resnet50"):
        create_net(Arch(name="resnt50"))
    with pytest.raises(ValueError, match="near ones are none"):
        create_net(Arch(name="@@@@@@@@"))


@pytest.mark.parametrize("options", [{"bogus": 1}, {"pos_embed": "nosuch"}], ids=str)
def test_an_option_that_timm_refuses_is_named(options: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"vit_tiny_patch16_224 does not take these options .*{next(iter(options))}"):
        create_net(vit(**options))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_heads": 5}, r"Arch\.options\.embed_dim 48 does not divide by num_heads 5"),
        ({"num_heads": 0}, r"Arch\.options\.num_heads is 0; it must be an integer, at least 1"),
        ({"depth": 0}, r"Arch\.options\.depth is 0; it must be an integer, at least 1"),
        ({"patch_size": "eight"}, r"Arch\.options\.patch_size is 'eight'; it must be an integer"),
        ({"patch_size": 12}, r"Arch\.image_size 32 does not divide by options\.patch_size 12"),
        ({"drop_path_rate": 1.0}, r"Arch\.options\.drop_path_rate is 1\.0; .* below 1"),
    ],
    ids=str,
)
def test_an_option_of_which_timm_would_make_nonsense_is_named(options: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        vit(**options)


def test_weights_load_exactly(tiny_arch: Arch) -> None:
    one, two = create_net(tiny_arch, num_classes=0), create_net(tiny_arch, num_classes=0)
    load_exact(two, one.state_dict(), what="toy")
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def broken_states(state: dict[str, Tensor]) -> dict[str, tuple[dict[str, Tensor], str]]:
    first, *rest = state
    return {
        "prefix": (
            {f"encoder.{k}": v for k, v in state.items()},
            r"missing blocks\.0\.attn.* \.\.\.; unexpected encoder\.blocks",
        ),
        "one renamed": ({"klass": state[first]} | {k: state[k] for k in rest}, f"missing {first}; unexpected klass"),
        "extra": (state | {"decoder.weight": torch.zeros(1)}, "unexpected decoder.weight$"),
        "lost": ({k: state[k] for k in state if k != "norm.bias"}, "missing norm.bias$"),
        "shape": (
            state | {"norm.bias": torch.zeros(7)},
            r"other shapes: norm.bias is \(7,\), the architecture has \(48,\)",
        ),
        "empty": ({}, "missing blocks"),
    }


@pytest.mark.parametrize("case", ["prefix", "one renamed", "extra", "lost", "shape", "empty"])
def test_weights_that_do_not_fit_are_refused_by_key_and_change_nothing(tiny_arch: Arch, case: str) -> None:
    net = create_net(tiny_arch, num_classes=0)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state, message = broken_states(create_net(tiny_arch, num_classes=0).state_dict())[case]
    with pytest.raises(ValueError, match=message) as caught:
        load_exact(net, state, what="runs/ck")
    assert str(caught.value).startswith("runs/ck does not fit the architecture: ")
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_weights_of_another_architecture_are_refused(tiny_arch: Arch) -> None:
    net = create_net(tiny_arch, num_classes=0)
    with pytest.raises(ValueError, match=r"unexpected blocks\.2\."):
        load_exact(net, create_net(vit(depth=3), num_classes=0).state_dict(), what="deeper")
    with pytest.raises(ValueError, match=r"missing blocks\.1\."):
        load_exact(net, create_net(vit(depth=1), num_classes=0).state_dict(), what="flatter")
    with pytest.raises(ValueError, match=r"other shapes: .* the architecture has"):
        load_exact(net, create_net(vit(embed_dim=96), num_classes=0).state_dict(), what="wider")
    with pytest.raises(ValueError, match=r"missing .*unexpected "):
        load_exact(net, create_net(Arch(name="resnet18"), num_classes=0).state_dict(), what="resnet")


def test_a_head_is_missing_exactly_where_the_contract_says_so(tiny_arch: Arch) -> None:
    bare = create_net(tiny_arch, num_classes=0).state_dict()
    headed = create_net(tiny_arch, num_classes=4)
    head = {"head.weight", "head.bias"}
    with pytest.raises(ValueError, match=r"missing head\.bias, head\.weight"):
        load_exact(headed, bare, what="toy")
    before = headed.state_dict()["head.weight"].clone()
    load_exact(headed, bare, what="toy", missing=head)
    assert torch.equal(headed.state_dict()["head.weight"], before)
    assert torch.equal(headed.state_dict()["cls_token"], bare["cls_token"])
    with pytest.raises(ValueError, match=r"against the contract head\.bias, head\.weight"):
        load_exact(headed, headed.state_dict(), what="toy", missing=head)


def test_a_head_is_dropped_exactly_where_the_contract_says_so(tiny_arch: Arch) -> None:
    net = create_net(tiny_arch, num_classes=0)
    headed = create_net(tiny_arch, num_classes=4).state_dict()
    head = {"head.weight", "head.bias"}
    load_exact(net, headed, what="toy", unexpected=head)
    assert torch.equal(net.state_dict()["cls_token"], headed["cls_token"])
    with pytest.raises(ValueError, match="against the contract decoder"):
        load_exact(net, headed, what="toy", unexpected=head | {"decoder"})


@pytest.mark.parametrize("global_pool", ["token", "avg"])
@torch.no_grad()
def test_a_classifier_is_loaded_with_its_head_and_pooling(
    tiny_arch: Arch, images: Tensor, tmp_path: Path, global_pool: str
) -> None:
    model = Backbone(tiny_arch, mean=(0.5,) * 3, num_classes=4, model_args={"global_pool": global_pool}).eval()
    meta = Meta(
        kind="classifier",
        method="toy",
        arch=tiny_arch,
        epochs=None,
        seed=0,
        mean=(0.5,) * 3,
        classes=("a", "b", "c", "d"),
        global_pool=global_pool,
    )
    save_checkpoint(tmp_path / "ck", model.net.state_dict(), meta)
    loaded = load_backbone(load_checkpoint(tmp_path / "ck"), what="toy")
    assert not loaded.training
    assert torch.equal(loaded(images), model(images))


def test_a_checkpoint_of_another_architecture_is_refused(tiny_arch: Arch) -> None:
    state = create_net(vit(depth=3), num_classes=0).state_dict()
    meta = Meta(kind="backbone", method="toy", arch=tiny_arch, epochs=None, seed=0)
    with pytest.raises(ValueError, match="row 1 does not fit the architecture"):
        load_backbone(Checkpoint(state=state, meta=meta), what="row 1")
