"""Our checkpoint format: a folder with ``weights.safetensors`` (a plain timm state dict) and ``meta.json``."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cim_bench.common.hashing import stable_hash
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD, Arch

META_SCHEMA = 1
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
    meta = Meta(**{**vars(meta), "hash": content_hash(state)})
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, temporary / WEIGHTS)
        if pretext is not None:
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in pretext.items()}, temporary / PRETEXT)
        (temporary / META).write_text(json.dumps(asdict(meta), indent=2, sort_keys=True) + "\n")
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
    """Identity of a checkpoint folder.

    Raises:
        ValueError: If the folder is not a checkpoint of ours.
    """
    try:
        raw = json.loads((folder / META).read_text())
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in raw["arch"]["options"].items()}
        raw["arch"] = Arch(**{**raw["arch"], "options": options})
        for name in ("mean", "std", "classes"):
            raw[name] = tuple(raw[name])
        meta = Meta(**raw)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder} is not a cim-bench checkpoint (a folder with {WEIGHTS} and {META}): {error}"
        ) from error
    if meta.schema != META_SCHEMA:
        raise ValueError(f"{folder / META} has schema {meta.schema}, this version reads {META_SCHEMA}")
    return meta


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
