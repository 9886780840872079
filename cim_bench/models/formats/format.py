"""`Format`, the declaration of a public checkpoint format, and `LoadReport`, what became of a file's keys."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from cim_bench.models.backbone import NORM_EPS
from cim_bench.models.formats.families import FAMILY_KEYS, Family
from cim_bench.models.formats.normalisation import IMAGENET, Normalisation
from cim_bench.models.positions import Interpolation
from cim_bench.spec import FromCheckpoint

LAYER_NORM_EPS = 1e-6  # of timm's transformers (models/vision_transformer.py, beit.py, eva.py)
# Where config.json leaves layer_norm_eps out (huggingface/transformers, models/*/configuration_*.py); Dinov2's is 1e-6.
EPS_OF_TRANSFORMERS = {"vit": 1e-12, "vit_mae": 1e-12, "beit": 1e-12}

Kind = Literal["backbone", "classifier"]
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Check:
    """What the values of a format's files look like.

    Attributes:
        look: Says what a state dict with the format's own keys holds, as half a sentence.
        expect: What it says of the format's files.
    """

    look: Callable[[State], str]
    expect: str


@dataclass(frozen=True, kw_only=True)
class Format:
    """A public checkpoint format: how it is recognised, how its keys become timm's, how its network is used.

    A file is of a format if every key of it is claimed (dropped, or under its timm name a key of the family or one of
    `also`), every pattern of `has` finds a key, and every check holds. Every pattern is a regular expression; those of
    `has`, `dropped` and `rename` are searched in the file's own names.

    Attributes:
        name: What reports call it.
        method: Pretext. Empty: the files are of any method, and the user's word counts.
        kind: ``classifier`` files have a fine-tuned head.
        family: Of timm's networks: which keys there are, and how the architecture is read from shapes.
        under: Top-level entries where the state dict may lie, in order; ``""`` is the file itself.
        has: Each must match a key.
        rename: Patterns and replacements, in order, that turn public names into timm's.
        dropped: Keys that a backbone does not need: decoders, momentum copies, queues, projectors.
        also: timm's names beyond those of the family, such as a head's; each must match the whole name.
        checks: What values must look like, where keys alone do not tell.
        args: Settings that the public script saves beside the weights (``args``, or ``config``), and those of formats
            with the same keys do not: names, or ``NAME=VALUE``. A file where such a name has another value is refused.
        part: What follows ``#`` in a path that asks for this part of the file, e.g. ``ema``.
        rearrange: Joins or splits tensors after the renaming, e.g. three projections to one.
        may_lack_counters: Whether the file may lack all of BatchNorm's ``num_batches_tracked``; no feature needs them.
        heads: Attention heads by embedding width, where they are not the usual ones.
        options: Further arguments of ``timm.create_model``, where the public network is not timm's default.
        resample: How the public code brings positions to another grid (`interpolate_positions`).
        normalisation: Of the input, and where that is said.
        published_size: Pixels of published k-NN and linear figures, where positions are for another size; 0: the same.
        epoch_shift: Added to the file's ``epoch``, which some scripts count from 0.
        source: Public code that writes it.
    """

    name: str
    method: str
    kind: Kind = "backbone"
    family: Family
    under: tuple[str, ...] = ("model", "module", "state_dict", "")
    has: tuple[str, ...]
    rename: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    args: tuple[str, ...] = ()
    part: str = ""
    rearrange: Callable[[State], dict[str, Tensor]] | None = None
    may_lack_counters: bool = False
    heads: Mapping[int, int] = field(default_factory=dict)
    options: Mapping[str, int | float | str] = field(default_factory=dict)
    resample: Interpolation = "size"
    normalisation: Normalisation = IMAGENET
    published_size: int = 0
    epoch_shift: int = 0
    source: str

    def lacking(self, keys: Iterable[str]) -> list[str]:
        """Keys that this format requires and that are not there, as `readable` patterns."""
        text = "\n".join(keys)
        return [readable(pattern) for pattern in self.has if not re.search(pattern, text, re.MULTILINE)]

    def unknown(self, keys: Iterable[str]) -> list[str]:
        """Keys that this format does not claim."""
        wanted = re.compile("|".join((*FAMILY_KEYS[self.family], *self.also)))
        return [key for key in keys if (name := self.timm_name(key)) is not None and not wanted.fullmatch(name)]

    def contradictions(self, state: State) -> list[str]:
        """What the values of a state dict with this format's keys say against it, as half sentences."""
        return [found for check in self.checks if (found := check.look(state)) != check.expect]

    def says(self, args: Mapping[str, Any]) -> bool | None:
        """Whether the settings in a file are those of this format's script; ``None`` if they do not tell."""
        if not self.args or not args:
            return None
        wanted = [setting.partition("=") for setting in self.args]
        return all(name in args and (not equals or str(args[name]) == value) for name, equals, value in wanted)

    @property
    def settings(self) -> set[str]:
        """Names of the settings in `args`."""
        return {setting.partition("=")[0] for setting in self.args}

    def denied(self, args: Mapping[str, Any]) -> str:
        """A setting in a file with another value than this format's files have, as ``NAME=VALUE``; empty if none."""
        wanted = dict(setting.split("=", 1) for setting in self.args if "=" in setting)
        return next((f"{name}={args[name]}" for name in wanted if name in args and str(args[name]) != wanted[name]), "")

    def timm_name(self, key: str) -> str | None:
        """timm's name of a public key; ``None`` if it is dropped."""
        if self._dropped is not None and self._dropped.search(key):
            return None
        for pattern, replacement in self.rename:
            key = re.sub(pattern, replacement, key)
        return key

    def heads_of(self, config: Mapping[str, Any]) -> Mapping[int, int]:
        """Attention heads by width, those that ``config.json`` beside the file names among them."""
        width, heads = config.get("hidden_size"), config.get("num_attention_heads")
        own = {width: heads} if isinstance(width, int) and isinstance(heads, int) else {}
        return {**self.heads, **own}

    def options_of(self, config: Mapping[str, Any]) -> Mapping[str, int | float | str]:
        """Arguments of the network, an activation and a LayerNorm eps of ``config.json`` beside the file among them.

        Raises:
            ValueError: If the eps is no positive number.
        """
        activation = config.get("hidden_act", "gelu")
        eps = config.get("layer_norm_eps", EPS_OF_TRANSFORMERS.get(config.get("model_type", ""), LAYER_NORM_EPS))
        if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1:
            raise ValueError(
                f"config.json beside it says layer_norm_eps = {eps!r}; it must be a number between 0 and 1"
            )
        return (
            dict(self.options)
            | ({} if activation == "gelu" else {"act_layer": activation})
            | ({} if eps == LAYER_NORM_EPS else {NORM_EPS: eps})
        )

    @functools.cached_property
    def _dropped(self) -> re.Pattern[str] | None:
        return re.compile("|".join(self.dropped)) if self.dropped else None


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of every key of a file, and how it was told what the file is.

    Attributes:
        format: Name of the recognised format.
        evidence: What told the format, and the method where the format has none.
        normalisation: Where mean and std were read.
        matched: timm names that were taken as they are.
        resampled: timm names of positions that were brought to another grid.
        missing: timm names that the file lacks and its format lets it lack: counters, set to 0.
        unexpected: The file's names that its format drops.
        notes: What else was done to the weights, one sentence each.
    """

    format: str
    evidence: str
    normalisation: str
    matched: tuple[str, ...] = ()
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


def check_kind(source: FromCheckpoint, kind: str) -> None:
    """Refuse a checkpoint of another kind than was asked for.

    Args:
        source: What was asked for.
        kind: What the checkpoint is.

    Raises:
        ValueError: Naming both, and what to give.
    """
    asked = "classifier" if source.drop_head else source.kind
    if not asked or kind == asked:
        return
    if source.drop_head:
        raise ValueError(f"{source.path} is a pre-trained backbone, which has no head to drop; set drop_head to False")
    words = {"backbone": "a pre-trained backbone", "classifier": "a fine-tuned classifier"}
    give = "give the checkpoint before fine-tuning" if asked == "backbone" else "fine-tune it first"
    raise ValueError(f"{source.path} is {words[kind]}, {words[asked]} was asked for; {give}")
