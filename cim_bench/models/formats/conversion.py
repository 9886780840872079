"""Convert a recognised file: its keys under timm's names, its weights in fp32, and its identity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cim_bench.data.classes import imagenet_wnids
from cim_bench.models.backbone import create_meta_net
from cim_bench.models.checkpoint import Meta
from cim_bench.models.formats.architectures import MeasuredArch, choose_arch, measure_arch, parse_arch, rows_of
from cim_bench.models.formats.format import Format, LoadReport, Triple
from cim_bench.models.formats.normalisation import check_tag, normalisation
from cim_bench.models.formats.recognise import RecognisedState
from cim_bench.models.formats.training_metadata import check_named_arch, epochs_of, unused_averages
from cim_bench.spec import FromCheckpoint

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def convert(found: RecognisedState, source: FromCheckpoint, loaded: Any) -> tuple[dict[str, Tensor], Meta, LoadReport]:
    """Convert a recognised file.

    Args:
        found: The recognised state dict.
        source: What the user asks for.
        loaded: All that the file holds, for what training scripts save beside the weights.

    Returns:
        The state dict under timm's names, its identity, and a report of what was dropped or changed.

    Raises:
        ValueError: If the file is not what was asked for, or its weights cannot be used.
    """
    fmt = found.format
    state, dropped = _renamed(found)
    state, notes = _in_fp32(state)
    if "reg_token" in state:
        state |= _without_class_position(state)
    shape = measure_arch(state, fmt.family, fmt.heads)
    asked = parse_arch(source.arch)
    arch = choose_arch(shape, asked)
    check_named_arch(loaded, arch)
    mean, std = _normalisation(fmt, arch.name, asked.tag)
    epochs, epoch_notes = epochs_of(loaded, fmt, source)
    meta = Meta(
        kind=fmt.kind,
        method=found.method,
        arch=arch,
        epochs=epochs,
        seed=0,
        pretrain_data=source.pretrain_data,
        mean=mean,
        std=std,
        classes=_classes(state) if fmt.kind == "classifier" else (),
        global_pool=_classifier_pooling(state, shape) if fmt.kind == "classifier" else None,
        recipe={"format": fmt.name, "file": Path(source.path).name},
    )
    missing = _add_counters(state, fmt, meta)
    notes = (*notes, *epoch_notes, *unused_averages(loaded))
    report = LoadReport(format=fmt.name, matched=(), missing=missing, unexpected=dropped, notes=notes)
    return state, meta, report


def _normalisation(fmt: Format, name: str, tag: str) -> tuple[Triple, Triple]:
    """Mean and std: the format's, or those of the timm weights that the user names where the format is timm's."""
    if fmt.mean is None or fmt.std is None or (tag and fmt.tagged):
        return normalisation(name, tag)
    check_tag(name, tag, fmt.mean, fmt.std)
    return fmt.mean, fmt.std


def _without_class_position(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's register models add no position to the class token (timm, _convert_dinov2)."""
    token, positions = state["cls_token"], state["pos_embed"]
    if positions.ndim != 3 or token.shape != positions[:, :1].shape:
        raise ValueError(
            f"its cls_token has shape {tuple(token.shape)} and its pos_embed {tuple(positions.shape)}, "
            "not (1, 1, width) and (1, tokens, width)"
        )
    return {"cls_token": token + positions[:, :1], "pos_embed": positions[:, 1:]}


def _renamed(found: RecognisedState) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    state: dict[str, Tensor] = {}
    dropped = []
    for key, value in found.state.items():
        name = found.format.timm_name(key)
        if name is None:
            dropped.append(key)
        elif name in state:
            raise ValueError(f"two of its keys are {name} in timm's names, one of them {key}")
        else:
            state[name] = value
    return state, tuple(sorted(dropped))


def _in_fp32(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    odd = sorted(f"{k} ({_dtype_name(v)})" for k, v in state.items() if v.dtype not in FLOATS and not _is_counter(k, v))
    if odd:
        raise ValueError(
            f"{len(odd)} of its {len(state)} tensors hold no floating-point weights, such as {', '.join(odd[:3])}; "
            "give the checkpoint before it was quantised or packed"
        )
    other = sorted({_dtype_name(v) for v in state.values() if v.is_floating_point()} - {"float32"})
    notes = (f"weights are stored as {' and '.join(other)} and were converted to float32",) if other else ()
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, notes


def _is_counter(name: str, value: Tensor) -> bool:
    return name.endswith("num_batches_tracked") and value.dtype == torch.int64


def _dtype_name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _add_counters(state: dict[str, Tensor], fmt: Format, meta: Meta) -> tuple[str, ...]:
    """Add BatchNorm's batch counters where the format may lack them and the file has none; their names."""
    if not fmt.may_lack_counters:
        return ()
    wanted = {name for name in create_meta_net_of(meta).state_dict() if name.endswith("num_batches_tracked")}
    if wanted & state.keys():
        return ()
    state |= {name: torch.zeros((), dtype=torch.int64) for name in wanted}
    return tuple(sorted(wanted))


def _classes(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    head = "head.weight" if "head.weight" in state else "fc.weight"
    rows = rows_of(state[head])
    wnids = imagenet_wnids()
    if rows != len(wnids):
        raise ValueError(
            f"its {head} has {rows} classes that the file does not name; only heads for ImageNet-1k's 1000 classes are "
            "read, so fine-tune its backbone with cim-bench"
        )
    return wnids


def _classifier_pooling(state: Mapping[str, Tensor], shape: MeasuredArch) -> str | None:
    if not shape.image_size:
        return None
    return "avg" if "fc_norm.weight" in state else "token"


def create_meta_net_of(meta: Meta) -> torch.nn.Module:
    """The network that a checkpoint is for, without memory for weights."""
    options = {} if meta.global_pool is None else {"global_pool": meta.global_pool}
    net: torch.nn.Module = create_meta_net(meta.arch, num_classes=len(meta.classes), **options)
    return net
