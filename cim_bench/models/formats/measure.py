"""The timm architecture of a state dict: what a user asks for, what shapes say, and the choice between the two."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import timm
from torch import Tensor, nn

from cim_bench.models.backbone import SIZED, create_meta_net
from cim_bench.models.positions import REL_TABLE
from cim_bench.spec import Arch, Option

# (width, depth): size and attention heads (timm, models/vision_transformer.py; dinov2, models/vision_transformer.py)
VIT_SIZES = {
    (192, 12): ("tiny", 3),
    (384, 12): ("small", 6),
    (768, 12): ("base", 12),
    (1024, 24): ("large", 16),
    (1280, 32): ("huge", 16),
    (1408, 40): ("giant", 16),  # of EVA-01, I-JEPA and timm; DINOv2's is the next
    (1536, 40): ("giant", 24),
}
# (blocks of the four stages, bottleneck blocks?): depth (torchvision, models/resnet.py)
RESNET_DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}


@dataclass(frozen=True, kw_only=True)
class RequestedArch:
    """An architecture that a user names.

    Attributes:
        name: timm's name, without tag; empty if none is asked for.
        tag: Of timm's weights, e.g. ``augreg_in21k``, which tells their normalisation.
        image_size: If it was given.
        options: Further arguments of ``timm.create_model``.
    """

    name: str = ""
    tag: str = ""
    image_size: int | None = None
    options: Mapping[str, Option] = field(default_factory=dict)


def parse_arch(text: str) -> RequestedArch:
    """Read what `Arch.__str__` prints: ``NAME[.TAG][@SIZE][,OPTION=VALUE...]``.

    Raises:
        ValueError: Naming the part that is not of that form.

    Examples:
        >>> parse_arch("resnet50.a1_in1k@160")
        RequestedArch(name='resnet50', tag='a1_in1k', image_size=160, options={})
        >>> parse_arch("resnet10t,channels=16x32x64x128").options
        {'channels': (16, 32, 64, 128)}
    """
    if not text:
        return RequestedArch()
    head, *pairs = text.split(",")
    match = re.fullmatch(r"([\w-]+)(?:\.([\w.-]+))?(?:@(\d+))?", head)
    if match is None:
        raise ValueError(f"{head!r} names no architecture; write it like vit_base_patch16_224@224,num_heads=12")
    options: dict[str, Option] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier() or not value:
            raise ValueError(f"{pair!r} in {text!r} is no option; write OPTION=VALUE, like depth=12")
        options[key] = _option(value)
    size = int(match[3]) if match[3] else None
    return RequestedArch(name=match[1], tag=match[2] or "", image_size=size, options=options)


def _option(text: str) -> Option:
    if text in ("True", "False"):
        return text == "True"
    if re.fullmatch(r"\d+(x\d+)+", text):
        return tuple(int(part) for part in text.split("x"))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True, kw_only=True)
class MeasuredArch:
    """An architecture as the keys and shapes of a state dict tell it.

    Attributes:
        words: For messages, e.g. ``a ViT-S/16``.
        name: Its timm name; empty if its sizes are no known ones.
        image_size: Pixels a side that its positions are for; 0 if it has none.
        options: Arguments of ``timm.create_model`` that keys and shapes tell.
        dims: Width, depth and patch of a transformer; blocks of the stages of a ResNet.
    """

    words: str
    name: str
    image_size: int
    options: Mapping[str, Option]
    dims: tuple[int, ...]


def measure_arch(state: Mapping[str, Tensor], family: str, heads: Mapping[int, int]) -> MeasuredArch:
    """Measure the architecture of a state dict with timm's names.

    Args:
        state: The weights.
        family: Of its format.
        heads: Attention heads by width, where a format's are not the usual ones.

    Raises:
        ValueError: If the parts that tell the size are missing or of an odd shape.
    """
    if family == "any" and "patch_embed.proj.weight" not in state:
        return MeasuredArch(
            words="a network of a family that shapes do not tell", name="", image_size=0, options={}, dims=()
        )
    return _measure_resnet(state) if family == "resnet" else _measure_vit(state, family, heads)


def _measure_resnet(state: Mapping[str, Tensor]) -> MeasuredArch:
    stages = tuple(index_count(state, rf"layer{i}\.(\d+)\.") for i in (1, 2, 3, 4))
    bottleneck = "layer1.0.conv3.weight" in state
    first = tuple(state["conv1.weight"].shape) if "conv1.weight" in state else ()
    width = rows_of(state.get("layer1.0.conv1.weight"))
    known = first == (64, 3, 7, 7) and width == 64 and (stages, bottleneck) in RESNET_DEPTHS
    depth = RESNET_DEPTHS.get((stages, bottleneck), 0)
    words = f"a ResNet-{depth}" if known else f"a ResNet of {stages} blocks, width {width} and a first layer {first}"
    return MeasuredArch(
        words=words, name=f"resnet{depth}" if known else "", image_size=0, options={}, dims=(*stages, width)
    )


def _measure_vit(state: Mapping[str, Tensor], family: str, heads: Mapping[int, int]) -> MeasuredArch:
    projection = state.get("patch_embed.proj.weight")
    if projection is None or projection.ndim != 4 or projection.shape[2] != projection.shape[3]:
        raise ValueError("it has no square patch projection patch_embed.proj.weight (width, 3, patch, patch)")
    width, patch, depth = int(projection.shape[0]), int(projection.shape[2]), index_count(state, r"blocks\.(\d+)\.")
    size, usual = VIT_SIZES.get((width, depth), ("", 0))
    options: dict[str, Option] = {}
    if size and heads.get(width, usual) != usual:
        options["num_heads"] = heads[width]
    if family == "beit":
        name = _beit(state, size, usual, options)
    elif family == "dinov3":
        name = _dinov3(state, size)
    elif family == "any":
        name = ""
    else:
        name = _vit(state, size, patch, family, options)
    side = 0 if family in ("dinov3", "any") else position_grid(state)
    words = f"a ViT-{size[0].upper()}/{patch}" if size else f"a ViT of width {width}, depth {depth} and patch {patch}"
    return MeasuredArch(words=words, name=name, image_size=side * patch, options=options, dims=(width, depth, patch))


def _vit(state: Mapping[str, Tensor], size: str, patch: int, family: str, options: dict[str, Option]) -> str:
    """timm's name, after adding the patch to `options` where timm has the network with another one."""
    first = "eva02" if family == "eva" else "vit"
    last = "dinov2" if family == "dinov2" else "224"
    registers = "reg4_" if "reg_token" in state else ""
    names = {side: f"{first}_{size}_patch{side}_{registers}{last}" for side in (patch, 16, 14)}
    found = next((side for side, name in names.items() if timm.is_model(name)), 0) if size else 0
    if found not in (0, patch):
        options["patch_size"] = patch
    return names.get(found, "")


def _dinov3(state: Mapping[str, Tensor], size: str) -> str:
    """timm's name, of its networks with a bias of queries and values where the file has one (timm >= 1.0.20)."""
    gated = "blocks.0.mlp.fc1_g.weight" in state
    name = {"": "7b", "huge": "huge_plus"}.get(size, f"{size}_plus" if gated else size)
    bias = "_qkvb" if "blocks.0.attn.q_bias" in state else ""
    return f"vit_{name}_patch16_dinov3{bias}" if size or state["patch_embed.proj.weight"].shape[0] == 4096 else ""


def _beit(state: Mapping[str, Tensor], size: str, usual: int, options: dict[str, Option]) -> str:
    """timm's name, after adding to `options` what keys tell of the parts that SimMIM and BEiT can switch on or off."""
    shared = f"rel_pos_bias.{REL_TABLE}" in state
    options |= {
        "use_shared_rel_pos_bias": shared,
        "use_rel_pos_bias": any(key.endswith(f"attn.{REL_TABLE}") for key in state),
        "use_abs_pos_emb": "pos_embed" in state,
        "init_values": 0.1 if "blocks.0.gamma_1" in state else 0.0,
        "global_pool": "avg" if "fc_norm.weight" in state else "token",
    }
    patch = int(state["patch_embed.proj.weight"].shape[2])
    if patch != 16:
        options["patch_size"] = patch
    inside, width = rows_of(state.get("blocks.0.mlp.fc1.weight")), rows_of(state["patch_embed.proj.weight"])
    if inside not in (0, 4 * width):  # EVA-01's, which timm rounds down from a ratio
        options["mlp_ratio"] = inside / width if int(width * (inside / width)) == inside else (inside + 0.5) / width
    if size in ("base", "large"):
        return f"beit_{size}_patch16_224"
    if size:  # timm has no smaller beit: its base with other sizes
        width = state["patch_embed.proj.weight"].shape[0]
        options |= {"embed_dim": int(width), "depth": index_count(state, r"blocks\.(\d+)\."), "num_heads": usual}
        return "beit_base_patch16_224"
    return ""


def index_count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many indices there are: one more than the largest that the first group of a pattern finds in the keys."""
    return 1 + max((int(match[1]) for key in state if (match := re.match(pattern, key))), default=-1)


def rows_of(tensor: Tensor | None) -> int:
    """Length of the first axis; 0 if there is none."""
    return int(tensor.shape[0]) if tensor is not None and tensor.ndim else 0


def position_grid(state: Mapping[str, Tensor]) -> int:
    """Side, in patches, of the grid that the positions are for.

    Raises:
        ValueError: If they fit no square grid.

    Examples:
        >>> import torch
        >>> names = {"cls_token": torch.zeros(1, 1, 768), "pos_embed": torch.zeros(1, 197, 768)}
        >>> position_grid(names)  # 1 class token and 14 x 14 patches
        14
    """
    if "pos_embed" in state:
        shape = tuple(state["pos_embed"].shape)
        if len(shape) != 3 or shape[0] != 1:
            raise ValueError(f"its pos_embed has shape {shape}, not (1, tokens, width)")
        alone = "reg_token" in state or "cls_token" not in state  # no position but those of patches
        tokens = shape[1] - (0 if alone else 1)
        side = math.isqrt(max(tokens, 0))
        if side == 0 or side**2 != tokens:
            raise ValueError(f"its {shape[1]} positions are no square grid" + ("" if alone else " and a class token"))
        return side
    rows = next((rows_of(v) for k, v in state.items() if k.endswith(REL_TABLE)), 0)
    if not rows:
        raise ValueError("it has no positions, neither pos_embed nor a relative position bias")
    span = math.isqrt(max(rows - 3, 0))  # (2 grid - 1)² distances and three of the class token
    if span % 2 == 0 or span**2 + 3 != rows:
        raise ValueError(f"its relative position bias of {rows} rows is for no square grid")
    return (span + 1) // 2


def choose_arch(shape: MeasuredArch, asked: RequestedArch, options: Mapping[str, Option]) -> Arch:
    """The architecture to build, at the file's own input size.

    Args:
        shape: The file's.
        asked: The user's, whose options win.
        options: The format's.

    Raises:
        ValueError: If they contradict each other, or neither tells.
    """
    if not shape.name and not asked.name:
        raise ValueError(
            f"it is {shape.words}, which is no known architecture; "
            "name it like --arch vit_small_patch16_224@32,depth=2,embed_dim=48,num_heads=4,patch_size=8"
        )
    if "use_rel_pos_bias" in shape.options and asked.name and not asked.name.startswith("beit"):
        raise ValueError(
            f"its weights are read into timm's beit networks, {asked.name} was asked for; ask for "
            f"{shape.name or 'beit_base_patch16_224 with its sizes'}, or for none"
        )
    arch = Arch(
        name=asked.name or shape.name,
        image_size=shape.image_size or 224,
        options={**shape.options, **options, **asked.options},
    )
    if asked.name and asked.name != shape.name and shape.dims and arch_dims(arch) != shape.dims:
        raise ValueError(
            f"it is {shape.words}, {asked.name} was asked for"
            + (f"; ask for {shape.name}, or for none" if shape.name else "")
        )
    return arch


def input_size(given: int | None, asked: RequestedArch, arch: Arch, net: nn.Module) -> int:
    """The input size to use, after a check that the network can take it.

    Args:
        given: Input size that the user asks for separately (``--image-size``); wins over that of `asked`.
        asked: Architecture that the user asks for, possibly with an input size.
        arch: The file's architecture, with the input size that is used unless another is asked for.
        net: Its network.

    Raises:
        ValueError: If the network cannot take it.
    """
    size = asked.image_size if given is None else given
    if size is None or size == arch.image_size:
        return arch.image_size
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"image size {size} is no number of pixels; give a positive one, or none")
    embed = getattr(net, "patch_embed", None)
    fixed, patch = (_sides(getattr(embed, name, None)) for name in ("img_size", "patch_size"))
    if fixed and not arch.name.startswith(SIZED) and fixed != (size, size):
        raise ValueError(f"{arch.name} takes images of {fixed[0]} pixels only, not of {size}; give no image size")
    if any(size % side for side in patch):
        raise ValueError(f"image size {size} does not divide by its patch of {patch[0]}; choose a multiple")
    return size


def _sides(value: object) -> tuple[int, ...]:
    """Height and width of a size that timm keeps as one number or two; empty if there is none."""
    if isinstance(value, int):
        return (value, value)
    return tuple(value) if isinstance(value, tuple) else ()


def arch_dims(arch: Arch) -> tuple[int, ...]:
    """As `MeasuredArch.dims`, of an architecture that timm builds."""
    state = create_meta_net(arch, num_classes=0).state_dict()
    if "patch_embed.proj.weight" in state:
        projection = state["patch_embed.proj.weight"]
        return (projection.shape[0], index_count(state, r"blocks\.(\d+)\."), projection.shape[2])
    stages = tuple(index_count(state, rf"layer{i}\.(\d+)\.") for i in (1, 2, 3, 4))
    return (*stages, rows_of(state.get("layer1.0.conv1.weight")))
