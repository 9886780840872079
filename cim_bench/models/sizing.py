"""A network at another input size."""

from __future__ import annotations

from dataclasses import replace

from cim_bench.models.backbone import SIZED, Backbone, triple
from cim_bench.models.key_contract import load_exact
from cim_bench.models.positions import Interpolation, resample_positions


def at_size(model: Backbone, size: int, *, how: Interpolation = "size") -> Backbone:
    """The same weights for images of another size; positions are resampled, ResNets stay as they are.

    Args:
        model: Left as it is.
        size: Height and width in pixels.
        how: Interpolation of absolute positions (`cim_bench.models.positions.interpolate_positions`); ``size`` is that
            of MAE's, BEiT's and CIM's public code for fine-tuning.

    Returns:
        `model` itself if it has that size or takes any, else a new network on the same device and in the same mode.

    Raises:
        ValueError: If the patches do not divide the size.
    """
    if size == model.arch.image_size or not model.arch.name.startswith(SIZED):
        return model
    patch = patch_size(model)
    if size % patch:
        raise ValueError(
            f"{model.arch.name} has patches of {patch} pixels, which do not divide {size}; choose "
            f"{size // patch * patch} or {(size // patch + 1) * patch} pixels"
        )
    pooling = {"global_pool": pool} if (pool := getattr(model.net, "global_pool", None)) is not None else {}
    sized = Backbone(
        replace(model.arch, image_size=size),
        mean=triple(model.mean),
        std=triple(model.std),
        num_classes=model.num_classes,
        model_args=pooling,
    )
    shapes = {name: value.shape for name, value in sized.net.state_dict().items()}
    state, _ = resample_positions(model.net.state_dict(), shapes, how)
    load_exact(sized.net, state, what=model.arch.name)
    sized.classes = model.classes
    return sized.to(model.mean.device).train(model.training)


def patch_size(model: Backbone) -> int:
    """Pixels a side of a patch; 1 for networks without patches."""
    return int(getattr(getattr(model.net, "patch_embed", None), "patch_size", (1,))[0])
