"""The resume point of a training, ``resume.pt``: what is written, and what must hold before it is believed."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

RESUME = "resume.pt"
_UNREADABLE = (  # what torch and pickle raise on damaged bytes
    *(OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
SCHEMA = 2  # 1 had neither schema nor key


def write_resume(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a resume point whole or not at all; ``step`` is the first that was not made.

    Raises:
        OSError: Naming the file, if it cannot be written.
    """
    path, temporary = folder / RESUME, folder / f".{RESUME}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            torch.save({"schema": SCHEMA, **state}, file)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer has an error of its own for a full disk
        temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else error
        raise OSError(f"cannot write {path}: {reason}; free space, and the same command goes on") from error


def read_resume(path: Path, key: str, steps: int, model: nn.Module, optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Read a resume point that fits a run.

    Args:
        path: The file.
        key: The job's.
        steps: Of the whole training.
        model: The one to go on with.
        optimizer: The state of its fresh optimiser.

    Raises:
        ValueError: Naming the file, if it is damaged, another job's, or not one of this training.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__})") from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA or state.keys() != _KEYS:
        raise ValueError(f"{path} is no resume point of this version")
    if state["key"] != key:
        raise ValueError(f"{path} is of another job ({str(state['key'])[:12]})")
    if not isinstance(state["step"], int) or not 0 < state["step"] < steps:
        raise ValueError(f"{path} is at step {state['step']} of {steps}")
    if problem := next(_misfits(state, model, optimizer), ""):
        raise ValueError(f"{path} does not fit this training: {problem}")
    return state


_KEYS = {"schema", "key", "step", "last_epoch", "model", "optimizer", "scaler"}


def _misfits(state: Mapping[str, Any], model: nn.Module, optimizer: Mapping[str, Any]) -> Iterator[str]:
    own, kept = model.state_dict(), state["model"]
    if odd := sorted(own.keys() ^ kept.keys()):
        yield f"{odd[0]} is in one of the two alone"
    for name, value in kept.items():
        if name in own and value.shape != own[name].shape:
            yield f"{name} has shape {tuple(value.shape)} in place of {tuple(own[name].shape)}"
        if not _is_finite(value):
            yield f"{name} is not finite"
    groups = [len(group["params"]) for group in optimizer["param_groups"]]
    if [len(group["params"]) for group in state["optimizer"]["param_groups"]] != groups:
        yield "its optimiser has other parameters"
    for values in state["optimizer"]["state"].values():
        for name, value in values.items():
            if isinstance(value, Tensor) and not _is_finite(value):
                yield f"the optimiser's {name} is not finite"


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())
