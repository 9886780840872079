"""Bring the weights of an identified file under timm's names and into fp32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cim_bench.models.formats.identify import Identified

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Renamed:
    """Weights under timm's names.

    Attributes:
        state: In fp32.
        dropped: The file's names that the format drops.
        notes: What was done to the weights, one sentence each.
    """

    state: Mapping[str, Tensor]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]


def rename(found: Identified) -> Renamed:
    """Rename, convert and rearrange the weights of a file, as its format says.

    Raises:
        ValueError: If two keys get one name, or a tensor holds no floating-point weights.
    """
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
    state, notes = _in_fp32(state)
    if found.format.rearrange is not None:
        state = found.format.rearrange(state)
    return Renamed(state, tuple(sorted(dropped)), notes)


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
