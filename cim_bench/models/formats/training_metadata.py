"""What a training script saved beside the weights: epochs, the architecture's name, averages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import timm

from cim_bench.models.formats.key_map import Format
from cim_bench.spec import Arch, FromCheckpoint

AVERAGES = ("state_dict_ema", "model_ema")  # timm's train.py; BEiT's and DeiT's fine-tuning


def check_epochs(source: FromCheckpoint) -> None:
    """Refuse epochs that nothing was trained for.

    Raises:
        ValueError: Naming them.
    """
    if source.epochs is not None and not _positive(source.epochs):
        raise ValueError(f"{source.path} cannot have {source.epochs:g} pre-training epochs; give more than 0, or none")


def epochs_of(loaded: Any, fmt: Format, source: FromCheckpoint) -> tuple[float | None, tuple[str, ...]]:
    """Pre-training epochs of the file, else of the user, and what to note; a fine-tuned file counts its fine-tuning."""
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


def check_told_arch(loaded: Any, arch: Arch) -> None:
    """Refuse an architecture that the training script contradicts by name: some share all keys and shapes.

    Raises:
        ValueError: Naming both.
    """
    told = loaded.get("arch") if isinstance(loaded, Mapping) else None
    name = told.partition(".")[0] if isinstance(told, str) else ""
    if name in timm.list_models() and name != arch.name:  # without the old names of models that timm renamed
        raise ValueError(f"its entry 'arch' says {name}, and {arch.name} was taken for it; name it with --arch {name}")


def averages_in(loaded: Any) -> tuple[str, ...]:
    """A note on averaged weights that lie unused in the file."""
    names = [name for name in AVERAGES if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping)]
    return (f"its {' and '.join(names)}, averaged weights, were not used",) if names else ()


def _positive(value: float) -> bool:
    return 0 < value < math.inf
