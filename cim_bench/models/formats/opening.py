"""Public checkpoints as ours: read the file, recognise its format, apply its key map, and account for every key."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cim_bench.data.classes import imagenet_wnids
from cim_bench.models.backbone import SIZED, skeleton
from cim_bench.models.checkpoint import (
    META,
    PRETEXT,
    WEIGHTS,
    Checkpoint,
    Meta,
    content_hash,
    load_checkpoint,
    read_meta,
)
from cim_bench.models.formats.architectures import Shape, choose, measure, parse_arch, rows_of, wanted_size
from cim_bench.models.formats.key_map import Format, LoadReport, Triple, check_kind, same_method
from cim_bench.models.formats.normalisation import check_tag, normalisation
from cim_bench.models.formats.recognise import Found, recognise, suitable
from cim_bench.models.formats.resample import resample_positions
from cim_bench.models.formats.timm_hub import hub_kind, open_hub
from cim_bench.models.formats.training_metadata import averages_in, check_epochs, check_told_arch, epochs_of
from cim_bench.models.formats.weights_file import read_weights_file, state_dicts
from cim_bench.models.key_contract import check_keys
from cim_bench.spec import FromCheckpoint

HUB = "timm:"
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
PUBLISHED_SIZES = {"DINOv2": 224}  # of k-NN and linear figures, where positions are for another size
__all__ = ["LoadReport", "checkpoint_kind", "open_checkpoint"]


def open_checkpoint(source: FromCheckpoint) -> tuple[Checkpoint, LoadReport]:
    """Any checkpoint: a folder of ours, a public file, or ``timm:NAME``.

    ``FILE#ema`` asks for the EMA encoder of a CIM pre-training file. The keys must be exactly those of the
    architecture after the format's own renaming and dropping; nothing is ever left at its initialisation.

    Args:
        source: What to open, and what it must be.

    Returns:
        The checkpoint with timm's names in fp32, and the account of its keys.

    Raises:
        ValueError: One sentence that says what is wrong and what to do.
    """
    check_epochs(source)
    if source.path.startswith(HUB):
        state, meta, report = open_hub(source)
        return _finish(state, meta, source, report, "antialias", f"{source.path} is timm's, but")
    path, part = _split(source.path)
    if path.is_dir():
        _no_part(path, part)
        checkpoint, prefix = load_checkpoint(path), f"{path} is a cim-bench checkpoint, but"
        _check_own(source, checkpoint.meta, prefix)
        report = LoadReport(format="cim-bench", matched=())
        return _finish(checkpoint.state, checkpoint.meta, source, report, "size", prefix)
    loaded = read_weights_file(path, allow_pickle=source.allow_pickle)
    found = recognise(state_dicts(loaded, path), source.method, part, path)
    check_kind(source.path, found.format.kind, source.kind)
    prefix = f"{path} was recognised as {found.format.name}, but"
    try:
        state, meta, report = _apply(found, source, loaded)
    except ValueError as error:
        raise ValueError(f"{prefix} {error}") from error
    return _finish(state, meta, source, report, found.format.resample, prefix)


def checkpoint_kind(source: FromCheckpoint) -> str:
    """``backbone``, ``classifier``, or ``missing`` where there is no such file; reads names, not weights.

    Raises:
        ValueError: If the file can be read but not recognised.
    """
    if source.path.startswith(HUB):
        return hub_kind(source.path)
    path, part = _split(source.path)
    if not source.path or not path.exists():
        return "missing"
    if path.is_dir():
        _no_part(path, part)
        return read_meta(path).kind
    status = path.stat()
    return _file_kind(path, part, source.method, source.allow_pickle, (status.st_mtime_ns, status.st_size))


@functools.cache
def _file_kind(path: Path, part: str, method: str, allow_pickle: bool, _version: tuple[int, int]) -> str:
    states = state_dicts(read_weights_file(path, allow_pickle=allow_pickle, mmap=True), path)
    kinds = {found.format.kind for found in suitable(states, part)}
    return kinds.pop() if len(kinds) == 1 else recognise(states, method, part, path).format.kind


def _split(path: str) -> tuple[Path, str]:
    """A path and the part of the file after ``#``; a file whose name has that sign is meant as it is.

    A file inside a folder of ours means the folder: its weights without `META` would be somebody's.
    """
    name, sign, part = path.rpartition("#")
    file, part = (Path(path), "") if not sign or Path(path).exists() else (Path(name), part)
    folder = file.parent
    ours = file.name in (WEIGHTS, PRETEXT, META) and all((folder / own).is_file() for own in (WEIGHTS, META))
    return (folder if ours else file), part


def _no_part(path: Path, part: str) -> None:
    if part:
        raise ValueError(f"{path} is a cim-bench checkpoint, which has no parts; open it without #{part}")


def _check_own(source: FromCheckpoint, meta: Meta, prefix: str) -> None:
    check_kind(source.path, meta.kind, source.kind)
    if source.method and not same_method(source.method, meta.method):
        raise ValueError(f"{source.path} was trained by {meta.method}, {source.method} was asked for")
    asked = parse_arch(source.arch)
    if asked.name and (asked.name != meta.arch.name or not asked.options.items() <= meta.arch.options.items()):
        raise ValueError(f"{source.path} is {meta.arch}, {source.arch} was asked for")
    try:
        check_tag(asked.name, asked.tag, meta.mean, meta.std)
    except ValueError as error:
        raise ValueError(f"{prefix} {error}") from error


def _apply(found: Found, source: FromCheckpoint, loaded: Any) -> tuple[dict[str, Tensor], Meta, LoadReport]:
    """A recognised file in timm's names, its identity, and what was dropped or changed on the way."""
    fmt = found.format
    state, dropped = _renamed(found)
    state, notes = _in_fp32(state)
    if "reg_token" in state:
        state |= _without_class_position(state)
    shape = measure(state, fmt.family, fmt.heads)
    asked = parse_arch(source.arch)
    arch = choose(shape, asked)
    check_told_arch(loaded, arch)
    mean, std = _normalisation(fmt, arch.name, asked.tag)
    epochs, remarks = epochs_of(loaded, fmt, source)
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
        global_pool=_pooling(state, shape) if fmt.kind == "classifier" else None,
        recipe={"format": fmt.name, "file": Path(source.path).name},
    )
    missing = _counters(state, fmt, meta)
    notes = (*notes, *remarks, *averages_in(loaded))
    report = LoadReport(format=fmt.name, matched=(), missing=missing, unexpected=dropped, notes=notes)
    return state, meta, report


def _normalisation(fmt: Format, name: str, tag: str) -> tuple[Triple, Triple]:
    """Of the format, or of the timm weights that the user names where the format is theirs."""
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


def _renamed(found: Found) -> tuple[dict[str, Tensor], tuple[str, ...]]:
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
    odd = sorted(f"{k} ({_short(v)})" for k, v in state.items() if v.dtype not in FLOATS and not _is_counter(k, v))
    if odd:
        raise ValueError(
            f"{len(odd)} of its {len(state)} tensors hold no floating-point weights, such as {', '.join(odd[:3])}; "
            "give the checkpoint before it was quantised or packed"
        )
    other = sorted({_short(v) for v in state.values() if v.is_floating_point()} - {"float32"})
    notes = (f"weights are stored as {' and '.join(other)} and were converted to float32",) if other else ()
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, notes


def _is_counter(name: str, value: Tensor) -> bool:
    return name.endswith("num_batches_tracked") and value.dtype == torch.int64


def _short(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _counters(state: dict[str, Tensor], fmt: Format, meta: Meta) -> tuple[str, ...]:
    """Adds the counters that a format may lack, all of them or none."""
    if not fmt.fresh:
        return ()
    wanted = {name for name in _net(meta).state_dict() if name.endswith("num_batches_tracked")}
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


def _pooling(state: Mapping[str, Tensor], shape: Shape) -> str | None:
    if not shape.image_size:
        return None
    return "avg" if "fc_norm.weight" in state else "token"


def _net(meta: Meta) -> torch.nn.Module:
    options = {} if meta.global_pool is None else {"global_pool": meta.global_pool}
    net: torch.nn.Module = skeleton(meta.arch, num_classes=len(meta.classes), **options)
    return net


def _finish(
    state: Mapping[str, Tensor], meta: Meta, source: FromCheckpoint, report: LoadReport, resample: str, prefix: str
) -> tuple[Checkpoint, LoadReport]:
    """`_fitted`, with what was opened before its refusals, and a note where published figures are at another size."""
    try:
        checkpoint, report = _fitted(state, meta, source, report, resample)
    except ValueError as error:
        raise ValueError(f"{prefix} {error}") from error
    size, published = checkpoint.meta.arch.image_size, PUBLISHED_SIZES.get(meta.method)
    if published and size != published:
        note = f"evaluated at {size} pixels, published k-NN and linear figures are at {published}"
        report = replace(report, notes=(*report.notes, f"{note}: give --image-size {published} to compare"))
    return checkpoint, report


def _fitted(
    state: Mapping[str, Tensor], meta: Meta, source: FromCheckpoint, report: LoadReport, resample: str
) -> tuple[Checkpoint, LoadReport]:
    """Positions on the wanted grid, and proof that the keys and shapes are exactly those of the architecture."""
    broken = sorted(k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all())
    if broken:
        raise ValueError(
            f"{len(broken)} of its {len(state)} tensors hold NaN or infinity, such as {', '.join(broken[:3])}: "
            "the training diverged or the file is damaged; take an earlier checkpoint"
        )
    net = _net(meta)
    size = wanted_size(source.image_size, parse_arch(source.arch), meta.arch, net)
    if size != meta.arch.image_size:
        meta = replace(meta, arch=replace(meta.arch, image_size=size))
        net = _net(meta)
    own = net.state_dict()
    shapes = {name: value.shape for name, value in own.items()}
    resampled: tuple[str, ...] = ()
    if meta.arch.name.startswith(SIZED):
        state, resampled = resample_positions(state, shapes, resample)
    check_keys(own, state, what="its state dict")
    state = {k: v.contiguous() for k, v in state.items()}
    matched = tuple(sorted(state.keys() - set(resampled) - set(report.missing)))
    meta = replace(meta, hash=content_hash(state))
    return Checkpoint(state=state, meta=meta), replace(report, matched=matched, resampled=tuple(sorted(resampled)))
