"""`Format`, the declaration of a public checkpoint format, and `LoadReport`, what became of a file's keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cim_bench.models.positions import Interpolation
from cim_bench.spec import IMAGENET_MEAN, IMAGENET_STD

Kind = Literal["backbone", "classifier"]
Family = Literal["vit", "beit", "dinov2", "resnet"]
SinCosTable = Literal["mae", "moco3", "none"]
Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A public checkpoint format: how it is recognised, how its keys become timm's, how its network is used.

    Every pattern is a regular expression searched in the file's own key names.

    Attributes:
        name: What reports call it.
        method: Pretext. Empty: the keys fit several, and the user's word counts.
        kind: ``classifier`` files have a fine-tuned head.
        family: How the architecture is read from shapes (`cim_bench.models.formats.architectures`).
        under: Top-level entries where the state dict may lie, in order; ``""`` is the file itself.
        has: Each must match a key.
        lacks: None may match a key.
        rename: Patterns and replacements, in order, that turn public names into timm's.
        dropped: Keys that a backbone does not need: decoders, momentum copies, queues, projectors.
        may_lack_counters: Whether the file may lack all of BatchNorm's ``num_batches_tracked``; no feature needs them.
        part: What follows ``#`` in a path that asks for this part of the file, e.g. ``ema``.
        must_be_named: The keys do not tell this method from another one's, so the user has to.
        sincos: Which fixed table the positions are (`recognise.sincos_table_of`); ``None``: not looked at.
        frozen_patch: Whether the patch projection still has its initial bias of exactly 0; ``None``: not looked at.
        heads: Attention heads by embedding width, where they are not the usual ones.
        resample: How the public code brings positions to another grid (`interpolate_positions`).
        mean: Input normalisation of its training; ``None``: that of the timm weights named.
        std: Likewise.
        tagged: The tag of timm weights, where one is named, tells the normalisation in place of `mean` and `std`.
        epoch_shift: Added to the file's ``epoch``, which some scripts count from 0.
        source: Public code that writes it.
    """

    name: str
    method: str
    kind: Kind = "backbone"
    family: Family
    under: tuple[str, ...]
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()
    may_lack_counters: bool = False
    part: str = ""
    must_be_named: bool = False
    sincos: SinCosTable | None = None
    frozen_patch: bool | None = None
    heads: Mapping[int, int] = field(default_factory=dict)
    resample: Interpolation = "size"
    mean: Triple | None = IMAGENET_MEAN
    std: Triple | None = IMAGENET_STD
    tagged: bool = False
    epoch_shift: int = 0
    source: str

    def lacking(self, keys: Iterable[str]) -> list[str]:
        """Why a file with these keys is not of this format, in words; empty if it is."""
        text = "\n".join(keys)
        absent = [f"has no {readable(p)}" for p in self.has if not re.search(p, text, re.MULTILINE)]
        present = [f"has {readable(p)}" for p in self.lacks if re.search(p, text, re.MULTILINE)]
        return absent + present

    def timm_name(self, key: str) -> str | None:
        """timm's name of a public key; ``None`` if it is dropped."""
        if any(re.search(pattern, key) for pattern in self.dropped):
            return None
        for pattern, replacement in self.rename:
            key = re.sub(pattern, replacement, key)
        return key


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of every key of a file.

    Attributes:
        format: Name of the recognised format.
        matched: timm names that were taken as they are.
        resampled: timm names of positions that were brought to another grid.
        missing: timm names that the file lacks and its format lets it lack: counters, set to 0.
        unexpected: The file's names that its format drops.
        notes: What else was done to the weights, one sentence each.
    """

    format: str
    matched: tuple[str, ...]
    resampled: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def readable(pattern: str) -> str:
    r"""A key pattern as a message shows it: ``^(module\.)?blocks\.(\d+\.)?0\.`` is ``blocks.0.*``.

    Examples:
        >>> readable(r"^blocks\.\d+\.attn\.qkv\.weight$")
        'blocks.*.attn.qkv.weight'
    """
    text = re.sub(r"\([^()]*\)\?", "", pattern).removeprefix("^").replace("\\.", ".")
    text = re.sub(r"\\[dw][+*]", "*", text)
    text = re.sub(r"\(([^()]*)\)", lambda group: group[1].replace("|", "/"), text)
    return ("" if pattern.startswith("^") else "*") + text.removesuffix("$") + ("" if text.endswith("$") else "*")


def same_method(one: str, other: str) -> bool:
    """Names of methods, whatever their case, spaces and hyphens.

    Examples:
        >>> same_method("MoCo v3", "moco-v3")
        True
        >>> same_method("DINO", "DINOv2")
        False
    """
    bare = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in (one, other)]
    return bare[0] == bare[1]


def check_kind(path: str, kind: str, asked: str) -> None:
    """Refuse a checkpoint of another kind than was asked for.

    Raises:
        ValueError: Naming both, and what to give.
    """
    if not asked or kind == asked:
        return
    words = {"backbone": "a pre-trained backbone", "classifier": "a fine-tuned classifier"}
    give = "give the checkpoint before fine-tuning" if asked == "backbone" else "fine-tune it first"
    raise ValueError(f"{path} is {words[kind]}, {words[asked]} was asked for; {give}")
