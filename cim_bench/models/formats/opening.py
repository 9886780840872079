"""Open any checkpoint: read the file, recognise its format, rename its keys to timm's, and account for each of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cim_bench.models.backbone import SIZED
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
from cim_bench.models.formats.architectures import (
    input_size,
    parse_arch,
)
from cim_bench.models.formats.conversion import convert, create_meta_net_of
from cim_bench.models.formats.format import LoadReport, check_kind, same_method
from cim_bench.models.formats.normalisation import check_tag
from cim_bench.models.formats.recognise import formats_by_keys, recognise_format
from cim_bench.models.formats.resample import resample_positions
from cim_bench.models.formats.timm_hub import hub_kind, open_hub
from cim_bench.models.formats.training_metadata import check_epochs
from cim_bench.models.formats.weights_file import read_weights_file, state_dicts
from cim_bench.models.key_contract import check_keys
from cim_bench.models.positions import Interpolation
from cim_bench.spec import FromCheckpoint

HUB_PREFIX = "timm:"
PUBLISHED_SIZES = {"DINOv2": 224}  # pixels of published k-NN and linear figures, where positions are for another size


def open_checkpoint(source: FromCheckpoint) -> tuple[Checkpoint, LoadReport]:
    """Open a checkpoint: a folder of ours, a public file, or ``timm:NAME``.

    ``FILE#ema`` asks for the EMA encoder of a CIM pre-training file. The keys must be exactly those of the
    architecture after the format's own renaming and dropping; nothing is ever left at its initialisation.

    Args:
        source: What to open, and what it must be.

    Returns:
        The checkpoint with timm's names in fp32, and the report of what became of its keys.

    Raises:
        ValueError: One sentence that says what is wrong and what to do.
    """
    check_epochs(source)
    if source.path.startswith(HUB_PREFIX):
        state, meta, report = open_hub(source)
        return _finish(state, meta, source, report, "antialias", f"{source.path} is timm's, but")
    path, part = _file_and_part(source.path)
    if path.is_dir():
        _refuse_part(path, part)
        checkpoint, prefix = load_checkpoint(path), f"{path} is a cim-bench checkpoint, but"
        _check_own_checkpoint(source, checkpoint.meta, prefix)
        report = LoadReport(format="cim-bench", matched=())
        return _finish(checkpoint.state, checkpoint.meta, source, report, "size", prefix)
    loaded = read_weights_file(path, allow_pickle=source.allow_pickle)
    found = recognise_format(state_dicts(loaded, path), source.method, part, path)
    check_kind(source.path, found.format.kind, source.kind)
    prefix = f"{path} was recognised as {found.format.name}, but"
    try:
        state, meta, report = convert(found, source, loaded)
    except ValueError as error:
        raise ValueError(f"{prefix} {error}") from error
    return _finish(state, meta, source, report, found.format.resample, prefix)


def checkpoint_kind(source: FromCheckpoint) -> str:
    """``backbone``, ``classifier``, or ``missing`` where there is no such file; reads names, not weights.

    Raises:
        ValueError: If the file can be read but not recognised.
    """
    if source.path.startswith(HUB_PREFIX):
        return hub_kind(source.path)
    path, part = _file_and_part(source.path)
    if not source.path or not path.exists():
        return "missing"
    if path.is_dir():
        _refuse_part(path, part)
        return read_meta(path).kind
    status = path.stat()
    return _file_kind(path, part, source.method, source.allow_pickle, (status.st_mtime_ns, status.st_size))


@functools.cache
def _file_kind(path: Path, part: str, method: str, allow_pickle: bool, _version: tuple[int, int]) -> str:
    states = state_dicts(read_weights_file(path, allow_pickle=allow_pickle, mmap=True), path)
    kinds = {found.format.kind for found in formats_by_keys(states, part)}
    return kinds.pop() if len(kinds) == 1 else recognise_format(states, method, part, path).format.kind


def _file_and_part(path: str) -> tuple[Path, str]:
    """A path, and the part of the file that follows ``#``, unless the name of an existing file has that sign.

    The path of a file inside a checkpoint folder of ours becomes the folder's: alone, its weights lack their `META`.
    """
    name, sign, part = path.rpartition("#")
    file, part = (Path(path), "") if not sign or Path(path).exists() else (Path(name), part)
    folder = file.parent
    ours = file.name in (WEIGHTS, PRETEXT, META) and all((folder / own).is_file() for own in (WEIGHTS, META))
    return (folder if ours else file), part


def _refuse_part(path: Path, part: str) -> None:
    if part:
        raise ValueError(f"{path} is a cim-bench checkpoint, which has no parts; open it without #{part}")


def _check_own_checkpoint(source: FromCheckpoint, meta: Meta, prefix: str) -> None:
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


def _finish(
    state: Mapping[str, Tensor], meta: Meta, source: FromCheckpoint, report: LoadReport, how: Interpolation, prefix: str
) -> tuple[Checkpoint, LoadReport]:
    """`_fit_to_arch` with `prefix` before its errors, and a note where published figures are at another input size."""
    try:
        checkpoint, report = _fit_to_arch(state, meta, source, report, how)
    except ValueError as error:
        raise ValueError(f"{prefix} {error}") from error
    size, published = checkpoint.meta.arch.image_size, PUBLISHED_SIZES.get(meta.method)
    if published and size != published:
        note = f"evaluated at {size} pixels, published k-NN and linear figures are at {published}"
        report = replace(report, notes=(*report.notes, f"{note}: give --image-size {published} to compare"))
    return checkpoint, report


def _fit_to_arch(
    state: Mapping[str, Tensor], meta: Meta, source: FromCheckpoint, report: LoadReport, how: Interpolation
) -> tuple[Checkpoint, LoadReport]:
    """Resample positions to the requested input size, and hold keys and shapes to exactly those of the architecture."""
    broken = sorted(k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all())
    if broken:
        raise ValueError(
            f"{len(broken)} of its {len(state)} tensors hold NaN or infinity, such as {', '.join(broken[:3])}: "
            "the training diverged or the file is damaged; take an earlier checkpoint"
        )
    net = create_meta_net_of(meta)
    size = input_size(source.image_size, parse_arch(source.arch), meta.arch, net)
    if size != meta.arch.image_size:
        meta = replace(meta, arch=replace(meta.arch, image_size=size))
        net = create_meta_net_of(meta)
    own = net.state_dict()
    shapes = {name: value.shape for name, value in own.items()}
    resampled: tuple[str, ...] = ()
    if meta.arch.name.startswith(SIZED):
        state, resampled = resample_positions(state, shapes, how)
    check_keys(own, state, what="its state dict")
    state = {k: v.contiguous() for k, v in state.items()}
    matched = tuple(sorted(state.keys() - set(resampled) - set(report.missing)))
    meta = replace(meta, hash=content_hash(state))
    return Checkpoint(state=state, meta=meta), replace(report, matched=matched, resampled=tuple(sorted(resampled)))
