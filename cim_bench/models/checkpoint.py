"""Our checkpoint format: a folder with ``weights.safetensors`` (a plain timm state dict) and ``meta.json``."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cim_bench.common.hashing import stable_hash
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, Arch

META_SCHEMA = 2  # 1 had no seal
SEAL = "seal"  # in meta.json, the hash of all its other fields
WEIGHTS, PRETEXT, META = "weights.safetensors", "pretext.safetensors", "meta.json"


@dataclass(frozen=True, kw_only=True)
class Meta:
    """Identity of a checkpoint.

    Attributes:
        kind: ``backbone`` has no head; ``classifier`` has one for `classes`.
        method: What trained it, e.g. ``CIM``.
        arch: timm architecture.
        epochs: Pre-training epochs; ``None`` for random weights.
        seed: Seed of its training.
        mean: Input normalisation, per channel of an image in [0, 1].
        std: Likewise.
        parent: Content hash of the checkpoint it was fine-tuned from; empty if none.
        classes: Folder names in label order, for a classifier.
        global_pool: timm's pooling, for a classifier.
        recipe: The resolved recipe.
        pretrain_data: Image set of its pre-training; empty where it is not known.
        passed: Settings of the pretext that differ from its defaults; a fine-tuned child keeps its parent's.
        held_out: The pretext's last held-out metrics; empty for other weights.
        warning: A sentence on what pre-training did not reach, for every record of these weights; a child keeps it.
        key: Key of the job that made it.
        hash: Content hash of the weights; computed on saving.
    """

    kind: Literal["backbone", "classifier"]
    method: str
    arch: Arch
    epochs: float | None
    seed: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    parent: str = ""
    classes: tuple[str, ...] = ()
    global_pool: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    pretrain_data: str = ""
    passed: Mapping[str, Any] = field(default_factory=dict)
    held_out: Mapping[str, float] = field(default_factory=dict)
    warning: str = ""
    key: str = ""
    hash: str = ""
    schema: int = META_SCHEMA

    @property
    def identity(self) -> str:
        """Hash of all that a measurement of these weights depends on, and of the method that its row names.

        The same weights give other numbers under another normalisation, input size or number of heads. Epochs and
        pre-training data are labels alone: another one given later changes no record that exists.
        """
        parts = (self.hash, self.kind, self.method, str(self.arch), self.mean, self.std, self.classes, self.global_pool)
        return stable_hash(parts)


@dataclass(frozen=True)
class Checkpoint:
    """Weights and their identity."""

    state: dict[str, Tensor]
    meta: Meta


def content_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over the sorted names, dtypes, shapes and bytes of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(
    folder: Path, state: Mapping[str, Tensor], meta: Meta, pretext: Mapping[str, Tensor] | None = None
) -> Meta:
    """Write a whole checkpoint or nothing.

    Args:
        folder: Where; an older checkpoint there is replaced.
        state: A timm state dict.
        meta: Identity; its hash is filled in.
        pretext: The pretext model's whole state, kept beside the weights for ``cim-bench visualize``.

    Returns:
        `meta` with its hash.

    Raises:
        OSError: Naming `folder`, if it cannot be written.
    """
    meta = replace(meta, hash=content_hash(state), schema=META_SCHEMA)
    check_meta(meta)
    fields = asdict(meta)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, temporary / WEIGHTS)
        if pretext is not None:
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in pretext.items()}, temporary / PRETEXT)
        sealed = {**fields, SEAL: stable_hash(fields)}
        (temporary / META).write_text(json.dumps(sealed, indent=2, sort_keys=True) + "\n")
        temporary.chmod(0o755)  # mkdtemp's 0700 would hide the checkpoint from colleagues
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"cannot write checkpoint {folder}: {error}; free space or choose another output folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return meta


def read_meta(folder: Path) -> Meta:
    """Identity of a checkpoint folder. Those of before version 0.3.0, which have no seal, are taken as they are.

    Raises:
        ValueError: If the folder is not a checkpoint of ours, or if its `META` was changed after it was written.
    """
    try:
        raw = json.loads((folder / META).read_text())
        seal = raw.pop(SEAL, "")
        is_whole = seal == stable_hash(raw)
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in raw["arch"]["options"].items()}
        raw["arch"] = Arch(**{**raw["arch"], "options": options})
        for name in ("mean", "std", "classes"):
            raw[name] = tuple(raw[name])
        meta = Meta(**raw)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{folder} is not a cim-bench checkpoint (a folder with {WEIGHTS} and {META}): {error}"
        ) from error
    if meta.schema not in (1, META_SCHEMA):
        raise ValueError(f"{folder / META} has schema {meta.schema}, this version reads 1 and {META_SCHEMA}")
    try:
        check_meta(meta)
    except ValueError as error:
        raise ValueError(f"{folder / META}: {error}; copy the checkpoint again") from error
    if not is_whole and (seal or meta.schema > 1):
        raise ValueError(f"{folder / META} was changed after it was written; copy the checkpoint again")
    return meta


def check_meta(meta: Meta) -> None:
    """Refuse values that no checkpoint has.

    Raises:
        ValueError: Naming the first field that is wrong, and its value.
    """
    is_classifier = meta.kind == "classifier"
    rules = {
        "kind": meta.kind in ("backbone", "classifier"),
        "method": isinstance(meta.method, str) and bool(meta.method),
        "arch": isinstance(meta.arch.name, str) and isinstance(meta.arch.image_size, int) and meta.arch.image_size > 0,
        "epochs": meta.epochs is None or (_is_number(meta.epochs) and meta.epochs >= 0),
        "seed": isinstance(meta.seed, int) and not isinstance(meta.seed, bool),
        "mean": len(meta.mean) == 3 and all(map(_is_number, meta.mean)),
        "std": len(meta.std) == 3 and all(_is_number(value) and value > 0 for value in meta.std),
        "classes": all(isinstance(name, str) for name in meta.classes) and bool(meta.classes) == is_classifier,
        "global_pool": meta.global_pool is None or isinstance(meta.global_pool, str),
        "recipe": isinstance(meta.recipe, Mapping),
        "passed": isinstance(meta.passed, Mapping),
        "held_out": isinstance(meta.held_out, Mapping) and all(map(_is_number, meta.held_out.values())),
        **{n: isinstance(getattr(meta, n), str) for n in ("parent", "pretrain_data", "warning", "key", "hash")},
    }
    for name, holds in rules.items():
        if not holds:
            raise ValueError(f"{name} is {getattr(meta, name)!r}, which no checkpoint has")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        ValueError: Naming the file, if it is missing or damaged.
    """
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read {file}: {error}") from error
    return tensors


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder and verify its content hash.

    Raises:
        ValueError: If it is not a checkpoint, is damaged, or its weights are not those that were saved.
    """
    meta = read_meta(folder)
    state = read_tensors(folder / WEIGHTS)
    if content_hash(state) != meta.hash:
        raise ValueError(
            f"{folder / WEIGHTS} does not have the content that {META} describes; copy the checkpoint again"
        )
    return Checkpoint(state=state, meta=meta)
