"""Read weight files without running code that they contain."""

from __future__ import annotations

import argparse
import collections
import pickle
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cim_bench.models.checkpoint import read_tensors

CONTAINERS = ("model", "state_dict", "teacher", "student")
OLD_TORCH = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # torch.save's magic number before it wrote zip files


def _safe_types() -> list[Any]:
    """Types that may be unpickled beside tensors: plain values that public training scripts save.

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
    with path.open("rb") as file:
        start = file.read(64)
    if path.suffix == ".safetensors" or start[8:9] == b"{":  # safetensors begins with a length and a JSON header
        return read_tensors(path)
    if foreign := _foreign_file(start):
        raise ValueError(f"{path} is {foreign}")
    if allow_pickle:
        print(
            f"warning: --allow-pickle: reading {path} can run any code that its author put in; "
            "do so only for files you trust",
            file=sys.stderr,
        )
        return _load(path, weights_only=False)
    with torch.serialization.safe_globals(_safe_types()):
        return _load(path, weights_only=True, mmap=mmap and start.startswith(b"PK\x03\x04"))


def _foreign_file(start: bytes) -> str:
    """What a file that is no checkpoint is, by its first bytes, and what to do; empty if it may be a checkpoint."""
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page and no checkpoint; download the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and no checkpoint; fetch the file itself with git lfs pull"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and OLD_TORCH not in start:
        return (
            "a plain pickle (pickle.dump), which can run any code when it is opened and is no file of torch.save; have "
            "its author save the state dict with torch.save or as .safetensors"
        )
    return ""


def _load(path: Path, **options: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of sparse tensors and old protocols, which are refused with a reason below
            return torch.load(path, map_location="cpu", **options)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"GLOBAL ([\w.]+)|(?:class|function|type) <?([\w.]+\.[\w.]+)", str(error))
        if culprit is None:
            raise ValueError(_damaged(path, error)) from error
        raise ValueError(
            f"{path} is more than tensors: it wants to make or call {culprit[1] or culprit[2]}, and a pickle can run "
            "any code; save the state dict alone (torch.save(model.state_dict(), FILE)), or pass --allow-pickle if you "
            "trust its author"
        ) from error
    except Exception as error:  # unpickling an untrusted file can raise anything
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
        ValueError: If there is none, the file is a whole pickled model, or a tensor is no plain one.
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
        entries = ", ".join(" ".join(str(key).split())[:40] for key in list(loaded)[:8]) or "nothing"
        raise ValueError(
            f"{path} has no state dict (names and tensors), neither by itself nor under {', '.join(CONTAINERS)}; "
            f"its entries are {entries}"
        )
    for state in found.values():
        _check_plain(state, path)
    return found


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
    )


def _check_plain(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are sparse, quantised, complex or not on the CPU."""
    for key, value in state.items():
        odd = {
            "sparse": value.layout is not torch.strided or value.is_nested,
            "quantised": value.is_quantized,
            "complex": value.is_complex(),
            f"{value.device.type}-device": value.device.type != "cpu",
        }
        if what := next((word for word, holds in odd.items() if holds), ""):
            raise ValueError(f"{path} has a {what} tensor, {key}; save dense real numbers, on the CPU")
