"""Reading other people's weight files without running what is in them."""

from __future__ import annotations

import argparse
import collections
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cim_bench.checkpoint import read_tensors

CONTAINERS = ("model", "state_dict", "teacher", "student")


def _allowed() -> list[Any]:
    """What may be made from a file beside tensors: plain values that public training scripts save.

    ``argparse.Namespace`` (MAE, CIM, DINO, BEiT: ``args``), NumPy scalars (accuracies), counters; SimMIM's
    ``yacs.config.CfgNode`` is read as a plain ordered dict.
    """
    core = np._core if hasattr(np, "_core") else np.core  # NumPy 2 renamed the module, and pickles keep the old name
    scalar = core.multiarray.scalar
    kinds = {type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "bool")}
    named = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    return [
        argparse.Namespace,
        collections.Counter,
        collections.defaultdict,
        dict,
        np.dtype,
        *kinds,
        *named,
        (collections.OrderedDict, "yacs.config.CfgNode"),
    ]


def read_weights_file(path: Path, *, allow_pickle: bool = False, mmap: bool = False) -> Any:
    """The object that a PyTorch or safetensors file holds, on the CPU.

    Args:
        path: The file.
        allow_pickle: Unpickle anything, **which runs whatever code the file contains**; warns on stderr.
        mmap: Leave tensors on disk until they are looked at; for reading key names only.

    Raises:
        ValueError: If the file is missing, damaged, or more than tensors and settings.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint file {path}; give a file, a folder of ours or timm:NAME")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if allow_pickle:
        print(
            f"warning: --allow-pickle: reading {path} can run any code that its author put in; "
            "do so only for files you trust",
            file=sys.stderr,
        )
        return _load(path, weights_only=False)
    with torch.serialization.safe_globals(_allowed()):
        return _load(path, weights_only=True, mmap=mmap and _is_zip(path))


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _load(path: Path, **options: Any) -> Any:
    try:
        return torch.load(path, map_location="cpu", **options)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"(?:GLOBAL|class|function|type) <?([\w.]+\.[\w.]+)", str(error))
        if culprit is None:
            raise ValueError(_damaged(path, error)) from error
        raise ValueError(
            f"{path} is more than tensors: it wants to make {culprit[1]}, and a pickle can run any code; save the "
            "state dict alone (torch.save(model.state_dict(), FILE)), or pass --allow-pickle if you trust its author"
        ) from error
    except (EOFError, RuntimeError, OSError, ValueError, KeyError, AttributeError, ImportError, IndexError) as error:
        raise ValueError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return (
        f"cannot read {path} ({path.stat().st_size:,} bytes): it is truncated or no PyTorch file; "
        f"download it again ({reason})"
    )


def state_dicts(loaded: Any, path: Path) -> dict[str, dict[str, Tensor]]:
    """The state dicts in a file, by the top-level entry they lie under; ``""`` for the file itself.

    Raises:
        ValueError: If there is none, or the file is a whole pickled model.
    """
    if isinstance(loaded, torch.nn.Module):
        raise ValueError(
            f"{path} is a whole pickled {type(loaded).__name__}, which ties it to its code; "
            "save its state dict instead: torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW_FILE)"
        )
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, not a state dict; save model.state_dict()")
    found = {}
    if _is_state_dict(loaded):
        found[""] = dict(loaded)
    for name in CONTAINERS:
        if _is_state_dict(loaded.get(name)):
            found[name] = dict(loaded[name])
    if not found:
        entries = ", ".join(str(key) for key in list(loaded)[:8]) or "nothing"
        raise ValueError(
            f"{path} has no state dict, neither by itself nor under {', '.join(CONTAINERS)}; its entries are {entries}"
        )
    return found


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0 and all(isinstance(v, Tensor) for v in value.values())
