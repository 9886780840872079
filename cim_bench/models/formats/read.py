"""Read weight files without running code that they contain."""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cim_bench.models.checkpoint import read_tensors

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"  # of Hugging Face, beside the weights
EXPORTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

CONTAINERS = ("model", "module", "state_dict", "teacher", "student", "encoder", "target_encoder")
ZIP = b"PK\x03\x04"
PACKED = {
    "gzip": b"\x1f\x8b", "xz": b"\xfd7zXZ", "bzip2": b"BZh", "Zstandard": b"\x28\xb5\x2f\xfd", "7z": b"7z\xbc\xaf",
}  # fmt: skip
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


@dataclass(frozen=True)
class WeightsFile:
    """All that a file holds, and what lies beside it.

    Attributes:
        path: The file.
        content: The object in it, with tensors on the CPU.
        states: Its state dicts, by the top-level entry that they lie under; ``""`` is the file itself.
        config: ``config.json`` beside it (Hugging Face); empty if there is none.
        processor: ``preprocessor_config.json`` beside it, likewise.
    """

    path: Path
    content: Any
    states: Mapping[str, Mapping[str, Tensor]]
    config: Mapping[str, Any]
    processor: Mapping[str, Any]

    @property
    def args(self) -> Mapping[str, Any]:
        """Settings: the entry ``args``, or ``config`` with dotted names, else `config` beside it; empty if none."""
        for entry in ("args", "config"):
            found = self.content.get(entry) if isinstance(self.content, Mapping) else None
            found = vars(found) if isinstance(found, argparse.Namespace) else found
            if isinstance(found, Mapping) and found:
                return dict(_flat(found, ""))
        return self.config


def _flat(settings: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_weights_file(path: Path, *, allow_pickle: bool = False, mmap: bool = False) -> WeightsFile:
    """Read a PyTorch or safetensors file, or a folder or an index of Hugging Face.

    Args:
        path: The file.
        allow_pickle: Unpickle anything, **which runs whatever code the file contains**; warns on stderr.
        mmap: Leave tensors on disk until they are looked at; for reading key names only.

    Raises:
        ValueError: If the file is missing, damaged, or more than tensors and settings.
    """
    if path.is_dir():
        path = _export_in(path)
    if not path.is_file():
        raise ValueError(f"there is no checkpoint file {path}; give a file, a folder of ours or timm:NAME")
    if path.name.endswith(".index.json"):
        content: Any = {}
        for shard in _shards(path):
            content |= _content(shard, allow_pickle=allow_pickle, mmap=mmap)
    else:
        content = _content(path, allow_pickle=allow_pickle, mmap=mmap)
    config, processor = (_json(path.with_name(name)) for name in (CONFIG, PROCESSOR))
    return WeightsFile(path, content, _state_dicts(content, path), config, processor)


def _export_in(folder: Path) -> Path:
    """The weights in a folder of Hugging Face's ``save_pretrained``."""
    found = next((folder / name for name in EXPORTS if (folder / name).is_file()), None)
    if found is None:
        raise ValueError(f"{folder} holds no checkpoint: neither meta.json (ours) nor {', '.join(EXPORTS[::2])}")
    return found


def _shards(index: Path) -> list[Path]:
    """The files that an index of Hugging Face names, all in its own folder."""
    names = _json(index).get("weight_map")
    if not isinstance(names, Mapping) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{index} is no index of weights (an entry weight_map with the file of each key)")
    shards = sorted({index.with_name(Path(name).name) for name in names.values()})
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise ValueError(f"{index} names {', '.join(missing[:3])}, which is not beside it; copy all its parts there")
    return shards


def _json(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {file}: {error}") from error
    return found if isinstance(found, Mapping) else {}


def _content(path: Path, *, allow_pickle: bool, mmap: bool) -> Any:
    with path.open("rb") as file:
        start = file.read(512)
    if foreign := _foreign_file(path, start):
        raise ValueError(f"{path} is {foreign}")
    if path.suffix == ".safetensors" or start[8:9] == b"{":  # safetensors begins with a length and a JSON header
        return read_tensors(path)
    if allow_pickle:
        print(
            f"warning: --allow-pickle: reading {path} can run any code that its author put in; "
            "do so only for files you trust",
            file=sys.stderr,
        )
        return _load(path, weights_only=False)
    with torch.serialization.safe_globals(_safe_types()):
        return _load(path, weights_only=True, mmap=mmap and start.startswith(ZIP))


def _foreign_file(path: Path, start: bytes) -> str:
    """What a file that is no checkpoint is, by its first bytes, and what to do; empty if it may be a checkpoint."""
    text = start[:64].lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page and no checkpoint; download the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and no checkpoint; fetch the file itself with git lfs pull"
    packed = next((name for name, magic in PACKED.items() if start.startswith(magic)), "")
    if not packed and start[257:262] == b"ustar" and not path.name.endswith(".pth.tar"):
        packed = "tar"
    if packed:
        return f"a {packed} archive; unpack it, and give the checkpoint inside"
    if path.suffix == ".onnx" or (start[:1] == b"\x08" and b"pytorch" in start[:64]):
        return "an ONNX graph, whose weights have lost their names; give the PyTorch checkpoint that it was made from"
    if start.startswith(ZIP) and _is_torchscript(path):
        return (
            "a TorchScript archive (torch.jit.save), a program and no checkpoint; save its weights: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        )
    if text.startswith(b"{") and path.suffix == ".json":
        return "a JSON file; give the folder that it lies in, or the weights themselves"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and OLD_TORCH not in start[:64]:
        return (
            "a plain pickle (pickle.dump), which can run any code when it is opened and is no file of torch.save; have "
            "its author save the state dict with torch.save or as .safetensors"
        )
    return ""


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False  # truncated, which reading it will say


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


def _state_dicts(loaded: Any, path: Path) -> dict[str, dict[str, Tensor]]:
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
