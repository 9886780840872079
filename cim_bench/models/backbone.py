"""Backbones: timm encoders that take images in [0, 1], with the input normalisation inside."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from cim_bench.models.checkpoint import Checkpoint
from cim_bench.models.key_contract import load_exact
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, Arch

SIZED = ("vit", "deit", "beit", "eva")  # families whose positions belong to an input size
NORM_EPS = "norm_eps"  # an option of `Arch` that timm does not have
INDEX = "relative_position_index"  # a constant of relative positions, which timm 1.0.9 counts among BEiT's weights
Feature = Literal["cls", "mean_patch", "pool"]


class Backbone(nn.Module):
    """A timm model that normalises its input.

    Args:
        arch: Architecture.
        mean: Per channel of an image in [0, 1].
        std: Likewise.
        num_classes: 0 for an encoder without head.
        model_args: Further arguments of ``timm.create_model`` that a protocol sets, e.g. ``drop_path_rate``.

    Raises:
        ValueError: If timm does not know the architecture or refuses an option.
    """

    mean: Tensor
    std: Tensor
    classes: tuple[str, ...] = ()  # folder names in label order, of a classifier that was loaded

    def __init__(
        self,
        arch: Arch,
        *,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        num_classes: int = 0,
        model_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.arch, self.num_classes = arch, num_classes
        self.net: Any = create_net(arch, num_classes=num_classes, **(model_args or {}))
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to the network's input space."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes), or timm's pooled feature where there is no head; images (N, 3, H, W) in [0, 1]."""
        output: Tensor = self.net(self.normalize(images))
        return output

    def feature(self, images: Tensor, kind: Feature) -> Tensor:
        """One vector an image, after the final norm.

        Args:
            images: (N, 3, H, W) in [0, 1].
            kind: ``cls`` token, ``mean_patch`` of the patch tokens, or ``pool`` of a CNN's last map.

        Raises:
            ValueError: If the architecture has no such feature.
        """
        return self._vector(self.net.forward_features(self.normalize(images)), kind)

    def features(self, images: Tensor, kind: Feature, blocks: Sequence[int]) -> Tensor:
        """`feature`, and the same vector after some blocks, without the final norm; in one pass.

        Args:
            images: (N, 3, H, W) in [0, 1].
            kind: ``cls`` or ``mean_patch``.
            blocks: Counted from 1.

        Returns:
            (N, 1 + blocks, D).

        Raises:
            ValueError: If the architecture has no such block or no such feature.
        """
        modules = list(getattr(self.net, "blocks", ()))
        if not modules or kind == "pool":
            raise ValueError(f"{self.arch.name} has no blocks with a {kind!r} feature; leave blocks empty")
        if unknown := [block for block in blocks if not 1 <= block <= len(modules)]:
            raise ValueError(f"{self.arch} has no block {unknown[0]}; choose from 1 to {len(modules)}")
        seen: dict[int, Tensor] = {}
        handles = [
            modules[block - 1].register_forward_hook(lambda *call, block=block: seen.update({block: call[-1]}))
            for block in blocks
        ]
        try:
            last = self.feature(images, kind)
        finally:
            for handle in handles:
                handle.remove()
        prefix = int(getattr(self.net, "num_prefix_tokens", 0))
        vectors = [seen[b][:, 0] if kind == "cls" else seen[b][:, prefix:].mean(dim=1) for b in blocks]
        return torch.stack([last, *vectors], dim=1)

    def _vector(self, output: Tensor, kind: Feature) -> Tensor:
        """`feature` of what the network's last block and norm gave."""
        if kind == "pool" and output.ndim == 4:
            pooled: Tensor = self.net.forward_head(output, pre_logits=True)
            return pooled
        prefix = int(getattr(self.net, "num_prefix_tokens", 0))
        after = getattr(self.net, "fc_norm", None)  # of networks that pool before their final norm
        after = None if isinstance(after, nn.Identity) else after
        if kind == "cls" and output.ndim == 3 and getattr(self.net, "cls_token", None) is not None:
            if after is not None:
                raise ValueError(f"{self.arch.name} normalises pooled patches alone; take the feature mean_patch")
            return output[:, 0]
        if kind == "mean_patch" and output.ndim == 3:
            pooled = output[:, prefix:].mean(dim=1)
            return pooled if after is None else after(pooled)
        raise ValueError(f"{self.arch.name} has no {kind!r} feature; its last output has shape {tuple(output.shape)}")

    @property
    def depth(self) -> int:
        """Blocks of a ViT, or stages of a ResNet.

        Raises:
            ValueError: If it has neither.
        """
        blocks = getattr(self.net, "blocks", None)
        known = hasattr(self.net, "layer4" if blocks is None else "patch_embed")  # MobileNets have other blocks
        if not known or not hasattr(self.net, "forward_intermediates"):
            raise ValueError(f"{self.arch.name} has no maps of patch tokens; give a ViT or a ResNet")
        return 4 if blocks is None else len(blocks)

    def check_blocks(self, blocks: Sequence[int]) -> None:
        """Refuse blocks that the network does not have.

        Raises:
            ValueError: Naming the first of them.
        """
        if odd := [block for block in blocks if not 0 <= block < self.depth]:
            raise ValueError(f"{self.arch} has no block {odd[0]}; choose blocks of 0 to {self.depth - 1}")

    def token_maps(self, images: Tensor, blocks: Sequence[int] | None = None, *, norm: bool) -> list[Tensor]:
        """Patch tokens after some blocks, or the maps of a ResNet's stages, without class token and registers.

        Args:
            images: (N, 3, H, W) in [0, 1].
            blocks: Counted from 0, in ascending order; ``None`` for the last.
            norm: Whether tokens pass the network's final norm; a ResNet has none.

        Returns:
            Of each block (N, width, H / patch, W / patch).

        Raises:
            ValueError: If the network has no patch tokens, or not that many blocks.
        """
        chosen = [self.depth - 1] if blocks is None else list(blocks)
        self.check_blocks(chosen)
        if not hasattr(self.net, "blocks"):
            chosen, norm = [stage + 1 for stage in chosen], False  # timm counts the stem
        maps: list[Tensor] = self.net.forward_intermediates(
            self.normalize(images), indices=chosen, norm=norm, output_fmt="NCHW", intermediates_only=True
        )
        return maps


def create_net(arch: Arch, **model_args: Any) -> Any:
    """``timm.create_model`` with the architecture's own size and options.

    Raises:
        ValueError: If timm does not know the architecture or refuses an option.
    """
    if not timm.is_model(arch.name):
        near = difflib.get_close_matches(arch.name, timm.list_models(), n=8)
        raise ValueError(f"timm has no architecture {arch.name!r}; near ones are {', '.join(near) or 'none'}")
    if arch.name.startswith(SIZED):
        model_args.setdefault("img_size", arch.image_size)
    options = {name: value for name, value in arch.options.items() if name != NORM_EPS}
    try:
        net = timm.create_model(arch.name, pretrained=False, **{**options, **model_args})
    except (TypeError, AssertionError) as error:
        raise ValueError(f"timm's {arch.name} does not take these options {dict(arch.options)}: {error}") from error
    for module in net.modules():
        if NORM_EPS in arch.options and isinstance(module, nn.LayerNorm):
            module.eps = float(str(arch.options[NORM_EPS]))
        if (index := getattr(module, INDEX, None)) is not None:
            module.register_buffer(INDEX, index, persistent=False)
    return net


def create_meta_net(arch: Arch, **model_args: Any) -> Any:
    """As `create_net`, with parameters on torch's ``meta`` device: shapes without memory for weights."""
    with meta_weights():
        return create_net(arch, **model_args)


def meta_weights() -> AbstractContextManager[None]:
    """Where parameters of new modules are made on torch's ``meta`` device."""
    from accelerate import init_empty_weights  # timm before 1.0.12 reads numbers off tensors: not all may be on meta

    made: AbstractContextManager[None] = init_empty_weights(include_buffers=False)
    return made


def triple(values: Tensor) -> tuple[float, float, float]:
    """Three channel values, such as a `Backbone`'s ``mean``, as a tuple of floats."""
    r, g, b = torch.flatten(values).tolist()
    return r, g, b


def load_backbone(checkpoint: Checkpoint, *, what: str) -> Backbone:
    """The model of a checkpoint, head included if it is a classifier, in eval mode.

    Raises:
        ValueError: If the weights are not those of the architecture.
    """
    meta = checkpoint.meta
    model_args = {} if meta.global_pool is None else {"global_pool": meta.global_pool}
    model = Backbone(meta.arch, mean=meta.mean, std=meta.std, num_classes=len(meta.classes), model_args=model_args)
    load_exact(model.net, checkpoint.state, what=what)
    model.classes = meta.classes
    return model.eval()
