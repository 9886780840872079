"""What training scripts save beside the weights: epochs, the architecture's name, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import timm

from cim_bench.models.formats.format import Format
from cim_bench.spec import Arch, FromCheckpoint

AVERAGE_ENTRIES = ("state_dict_ema", "model_ema")  # timm's train.py; BEiT's and DeiT's fine-tuning


def check_epochs(source: FromCheckpoint) -> None:
    """Refuse a number of pre-training epochs that is not positive.

    Raises:
        ValueError: Naming them.
    """
    if source.epochs is not None and not _positive(source.epochs):
        raise ValueError(f"{source.path} cannot have {source.epochs:g} pre-training epochs; give more than 0, or none")


def epochs_of(loaded: Any, fmt: Format, source: FromCheckpoint) -> tuple[float | None, tuple[str, ...]]:
    """Pre-training epochs, of the file or else of the user, and notes on entries that were ignored.

    The epochs of a fine-tuned file are those of its fine-tuning, and are not read.
    """
    if fmt.kind != "backbone" or not isinstance(loaded, Mapping):
        return source.epochs, ()
    notes: list[str] = []
    planned = getattr(loaded.get("args"), "epochs", None)
    for name, value, shift in (("epoch", loaded.get("epoch"), fmt.epoch_shift), ("args.epochs", planned, 0)):
        if isinstance(value, bool) or not isinstance(value, int if name == "epoch" else int | float):
            continue
        if _positive(value + shift):
            return float(value + shift), tuple(notes)
        notes.append(f"its {name} of {value} is no number of epochs and was ignored")
    return source.epochs, tuple(notes)


def check_named_arch(loaded: Any, arch: Arch) -> None:
    """Refuse an architecture whose name contradicts the file's entry ``arch``: some share all keys and shapes.

    Raises:
        ValueError: Naming both.
    """
    saved = loaded.get("arch") if isinstance(loaded, Mapping) else None
    name = saved.partition(".")[0] if isinstance(saved, str) else ""
    if name in timm.list_models() and name != arch.name:  # without the old names of models that timm renamed
        raise ValueError(f"its entry 'arch' says {name}, and {arch.name} was taken for it; name it with --arch {name}")


def unused_averages(loaded: Any) -> tuple[str, ...]:
    """A note on averaged weights of the file, which are not used; empty if it has none."""
    names = [name for name in AVERAGE_ENTRIES if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping)]
    return (f"its {' and '.join(names)}, averaged weights, were not used",) if names else ()


def _positive(value: float) -> bool:
    return 0 < value < math.inf
