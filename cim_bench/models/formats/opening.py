"""Open any checkpoint: read, identify, rename, measure, fit, report, in this order and once each.

| step | module | gives |
| --- | --- | --- |
| read | `read` | state dicts by entry, ``args``, and what lies beside the file; nothing in it runs |
| identify | `identify` (`candidates`, `explain`; the declarations in `catalogue`) | one `Format`, and what told it |
| rename | `rename` | weights under timm's names, in fp32 |
| measure | `measure`, `normalisation`, `training_metadata` | network, normalisation, epochs: a `Meta` |
| fit | `fit` | positions on the grid of the input size, keys and shapes exactly those of the network |
| report | here | a `Checkpoint` and its `LoadReport` |

Folders of ours and ``timm:NAME`` (`hub`) come with names and a `Meta`, and enter at the fit.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from cim_bench.data.classes import imagenet_wnids
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
from cim_bench.models.formats.candidates import fits_by_keys
from cim_bench.models.formats.catalogue.formats import formats_to_try
from cim_bench.models.formats.fit import fit
from cim_bench.models.formats.format import LoadReport, check_kind, same_method
from cim_bench.models.formats.hub import hub_kind, open_hub
from cim_bench.models.formats.identify import Identified, identify
from cim_bench.models.formats.measure import MeasuredArch, choose_arch, measure_arch, parse_arch, rows_of
from cim_bench.models.formats.normalisation import Told, agreed, check_tag
from cim_bench.models.formats.read import EXPORTS, WeightsFile, read_weights_file
from cim_bench.models.formats.rename import rename
from cim_bench.models.formats.training_metadata import check_epochs, check_named_arch, epochs_of, unused_averages
from cim_bench.models.positions import Interpolation
from cim_bench.spec import FromCheckpoint

HUB_PREFIX = "timm:"
HEADS = ("head.", "head_dist.", "fc.")  # begin the names of classification layers in timm's ViTs and ResNets


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checkpoint before the fit.

    Attributes:
        state: Weights under timm's names, in fp32.
        meta: Identity, at the file's own input size.
        report: What is known so far.
        resample: How positions are brought to another grid.
        published_size: As in `Format`.
        may_lack_counters: Likewise.
    """

    state: Mapping[str, Tensor]
    meta: Meta
    report: LoadReport
    resample: Interpolation
    published_size: int = 0
    may_lack_counters: bool = False


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
    path, part = _file_and_part(source.path)
    if source.path.startswith(HUB_PREFIX):
        opened, prefix = _of_hub(source), f"{source.path} is timm's, but"
    elif is_ours(path):
        prefix = f"{path} is a cim-bench checkpoint, but"
        opened = _own(path, part, source, prefix)
    else:
        file = read_weights_file(path, allow_pickle=source.allow_pickle)
        found = identify(file, formats_to_try(source.format), method=source.method, part=part)
        check_kind(source, found.format.kind)
        prefix = f"{path} was recognised as {found.format.name}, but"
        with _beginning(prefix):
            opened = _public(file, found, source)
    with _beginning(prefix):
        fitted = fit(
            opened.state,
            opened.meta,
            size=source.image_size,
            asked=parse_arch(source.arch),
            resample=opened.resample,
            may_lack_counters=opened.may_lack_counters,
        )
    notes, size = opened.report.notes, fitted.checkpoint.meta.arch.image_size
    if opened.published_size and size != opened.published_size:
        published = f"published k-NN and linear figures are at {opened.published_size}"
        note = f"evaluated at {size} pixels, {published}: give --image-size {opened.published_size} to compare"
        notes = (*notes, note)
    checkpoint = drop_head(fitted.checkpoint) if source.drop_head else fitted.checkpoint
    return checkpoint, replace(
        opened.report, matched=fitted.matched, resampled=fitted.resampled, missing=fitted.missing, notes=notes
    )


def drop_head(checkpoint: Checkpoint) -> Checkpoint:
    """The backbone of a classifier, with its pooling and the norm that belongs to it."""
    state = {name: value for name, value in checkpoint.state.items() if not name.startswith(HEADS)}
    meta = replace(checkpoint.meta, kind="backbone", classes=(), hash=content_hash(state))
    return Checkpoint(state=state, meta=meta)


def checkpoint_kind(source: FromCheckpoint) -> str:
    """``backbone``, ``classifier``, or ``missing`` where there is no such file; reads names, not weights.

    Raises:
        ValueError: If the file can be read but not recognised.
    """
    if source.drop_head:
        return "backbone"
    if source.path.startswith(HUB_PREFIX):
        return hub_kind(source.path)
    path, part = _file_and_part(source.path)
    if not source.path or not path.exists():
        return "missing"
    if is_ours(path):
        _refuse_part(path, part)
        return read_meta(path).kind
    status = path.stat()
    version = (status.st_mtime_ns, status.st_size)
    return _file_kind(path, part, source.method, source.format, source.allow_pickle, version)


@functools.cache
def _file_kind(path: Path, part: str, method: str, name: str, allow_pickle: bool, _version: tuple[int, int]) -> str:
    file, formats = read_weights_file(path, allow_pickle=allow_pickle, mmap=True), formats_to_try(name)
    kinds = {fmt.kind for fmt, _ in fits_by_keys(file.states, formats, part)}
    return kinds.pop() if len(kinds) == 1 else identify(file, formats, method=method, part=part).format.kind


def _file_and_part(path: str) -> tuple[Path, str]:
    """A path, and the part of the file that follows ``#``, unless the name of an existing file has that sign.

    The path of a file inside a checkpoint folder of ours becomes the folder's: alone, its weights lack their `META`.
    """
    name, sign, part = path.rpartition("#")
    file, part = (Path(path), "") if not sign or Path(path).exists() else (Path(name), part)
    inside = file.name in (WEIGHTS, PRETEXT, META) and all((file.parent / own).is_file() for own in (WEIGHTS, META))
    return (file.parent if inside else file), part


def is_ours(path: Path) -> bool:
    """True for a folder that is no export of Hugging Face."""
    return path.is_dir() and ((path / META).exists() or not any((path / name).exists() for name in EXPORTS))


def _refuse_part(path: Path, part: str) -> None:
    if part:
        raise ValueError(f"{path} is a cim-bench checkpoint, which has no parts; open it without #{part}")


@contextlib.contextmanager
def _beginning(prefix: str) -> Iterator[None]:
    """Put words before the sentence of an error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{prefix} {error}") from error


def _of_hub(source: FromCheckpoint) -> Opened:
    state, meta, report = open_hub(source)
    return Opened(state=state, meta=meta, report=report, resample="antialias")


def _own(path: Path, part: str, source: FromCheckpoint, prefix: str) -> Opened:
    """A folder of ours, if it is what was asked for."""
    _refuse_part(path, part)
    checkpoint = load_checkpoint(path)
    meta = checkpoint.meta
    check_kind(source, meta.kind)
    if source.method and not same_method(source.method, meta.method):
        raise ValueError(f"{source.path} was trained by {meta.method}, {source.method} was asked for")
    asked = parse_arch(source.arch)
    if asked.name and (asked.name != meta.arch.name or not asked.options.items() <= meta.arch.options.items()):
        raise ValueError(f"{source.path} is {meta.arch}, {source.arch} was asked for")
    with _beginning(prefix):
        check_tag(asked.name, asked.tag, (meta.mean, meta.std))
        agreed((meta.mean, meta.std), source.normalisation)
    report = LoadReport(format="cim-bench", evidence=f"a folder with {META}", normalisation=META)
    return Opened(state=checkpoint.state, meta=meta, report=report, resample="size")


def _public(file: WeightsFile, found: Identified, source: FromCheckpoint) -> Opened:
    """A public file after rename and measure."""
    fmt, renamed, asked = found.format, rename(found), parse_arch(source.arch)
    shape = measure_arch(renamed.state, fmt.family, fmt.heads_of(file.config))
    arch = choose_arch(shape, asked, fmt.options_of(file.config))
    check_named_arch(file.content, arch)
    told = Told(name=source.normalisation, arch=arch.name, tag=asked.tag, args=file.args, beside=file.processor)
    (mean, std), where = fmt.normalisation.read(told)
    epochs, epoch_notes = epochs_of(file.content, fmt, source)
    classifier = fmt.kind == "classifier"
    meta = Meta(
        kind=fmt.kind,
        method=found.method,
        arch=arch,
        epochs=epochs,
        seed=0,
        pretrain_data=source.pretrain_data,
        mean=mean,
        std=std,
        classes=_classes(renamed.state) if classifier else (),
        global_pool=_classifier_pooling(renamed.state, shape) if classifier else None,
        recipe={
            "format": fmt.name, "file": Path(source.path).name, "evidence": found.evidence, "normalisation": where,
        },
    )  # fmt: skip
    report = LoadReport(
        format=fmt.name,
        evidence=found.evidence,
        normalisation=where,
        unexpected=renamed.dropped,
        notes=(*renamed.notes, *epoch_notes, *unused_averages(file.content)),
    )
    return Opened(
        state=renamed.state,
        meta=meta,
        report=report,
        resample=fmt.resample,
        published_size=fmt.published_size,
        may_lack_counters=fmt.may_lack_counters,
    )


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
