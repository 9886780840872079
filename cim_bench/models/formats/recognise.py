"""Recognise the public format of a file from its keys: exactly one fits, or the error names the nearest ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cim_bench.models.formats.catalogue.formats import FORMATS
from cim_bench.models.formats.format import Format, SinCosTable, same_method
from cim_bench.models.positions import sincos_positions

SINCOS_TABLES: Mapping[SinCosTable, str] = {
    "mae": "the fixed sin-cos table of MAE and CIM",
    "moco3": "MoCo v3's fixed sin-cos table",
    "none": "no fixed sin-cos table",
}
States = Mapping[str, Mapping[str, Tensor]]  # state dicts by the top-level entry of the file that holds them


@dataclass(frozen=True)
class RecognisedState:
    """A state dict, its format, and the method that trained it; empty where the keys do not tell the method."""

    format: Format
    method: str
    state: Mapping[str, Tensor]


def formats_by_keys(states: States, part: str) -> list[RecognisedState]:
    """Formats whose keys a file has, each with the first state dict that has them; values are not looked at."""
    found = []
    for fmt in FORMATS:
        for name in fmt.under:
            if fmt.part == part and name in states and not fmt.lacking(states[name]):
                found.append(RecognisedState(fmt, fmt.method, states[name]))
                break
    return found


def recognise_format(states: States, method: str, part: str, path: Path) -> RecognisedState:
    """The one format of a file.

    Args:
        states: Its state dicts by the entry they lie under.
        method: The method that the user names, or "".
        part: What the user asks for after ``#``, or "".
        path: The file, for messages.

    Raises:
        ValueError: If no format fits, or several do and `method` does not choose.
    """
    by_keys = formats_by_keys(states, part)
    fits = [found for found in by_keys if not contradictions(found)]
    if not fits:
        raise ValueError(_no_format(states, by_keys, part, path))
    return _choose(fits, method, path)


def _choose(fits: list[RecognisedState], method: str, path: Path) -> RecognisedState:
    own = [f for f in fits if f.method and (same_method(f.method, method) if method else not f.format.must_be_named)]
    if len(own) == 1:
        return own[0]
    if own:
        raise ValueError(f"{path} fits several formats, {_names(own, 'and')}; save the state dict that you mean alone")
    sure = [f for f in fits if f.method and not f.format.must_be_named]
    rest = [f for f in fits if not f.method]
    if not sure and method and len(rest) == 1 and not _has_own_format(method, rest[0].format):
        return RecognisedState(rest[0].format, method, rest[0].state)
    if sure:
        raise ValueError(f"{path} is {_names(sure)}, {method} was asked for")
    if method:
        raise ValueError(f"{path} is no file of {method}: by its keys it is {_names(fits)}")
    raise ValueError(f"the keys of {path} are those of {_names(fits)} and do not tell which: name it with --method")


def _has_own_format(method: str, fmt: Format) -> bool:
    """Whether a method publishes ViTs in a format of its own, so that a file with timm's names is not one of them."""
    return fmt.family == "vit" and any(same_method(method, f.method) for f in FORMATS if f.family != "resnet")


def contradictions(found: RecognisedState) -> list[str]:
    """Why the values of a state dict contradict the format whose keys it has; empty if they do not."""
    fmt, state, reasons = found.format, found.state, []
    if fmt.sincos is not None and (table := sincos_table_of(state["pos_embed"])) != fmt.sincos:
        reasons.append(f"its positions are {SINCOS_TABLES[table]}")
    bias = state.get("patch_embed.proj.bias")
    if fmt.frozen_patch is not None and bias is not None and bool((bias == 0).all()) != fmt.frozen_patch:
        reasons.append(f"its patch projection was {'' if fmt.frozen_patch else 'never '}trained")
    return reasons


def sincos_table_of(positions: Tensor) -> SinCosTable:
    """Which fixed sin-cos table some positions are.

    Args:
        positions: (1, 1 + grid², width); of any other shape they are none.

    Returns:
        ``mae`` for the table of MAE and CIM; ``moco3`` for MoCo v3's, whose halves for rows and columns are swapped
        (moco-v3, vits.py); ``none`` for any other positions.
    """
    if positions.ndim != 3 or positions.shape[2] % 4 or positions.shape[2] == 0:
        return "none"
    side = math.isqrt(max(positions.shape[1] - 1, 0))
    if side == 0 or side**2 + 1 != positions.shape[1]:
        return "none"
    # half precision rounds values of up to 1 by 4e-3 in bfloat16; learned positions differ by far more
    tolerance = 1e-3 if positions.dtype in (torch.float32, torch.float64) else 5e-3
    table, found = sincos_positions(positions.shape[2], side), positions.float()
    if float((found - table).abs().max()) < tolerance:
        return "mae"
    swapped = table.roll(positions.shape[2] // 2, dims=2)
    return "moco3" if float((found - swapped).abs().max()) < tolerance else "none"


def _names(found: list[RecognisedState], word: str = "or") -> str:
    return f" {word} ".join(f.format.name if f.method else f"{f.format.name} (whatever trained it)" for f in found)


def _no_format(states: States, by_keys: list[RecognisedState], part: str, path: Path) -> str:
    if part:
        parts = sorted({f.part for f in FORMATS if f.part})
        plain = [found for found in formats_by_keys(states, "") if not contradictions(found)]
        return f"{path} has no part {part!r}" + (
            f": it is {_names(plain)}; open it without #{part}"
            if plain
            else f"; parts of known formats are {', '.join(parts)}"
        )
    if by_keys:
        return f"{path} has the keys of {by_keys[0].format.name}, but {' and '.join(contradictions(by_keys[0]))}"
    return (
        _explain_dino(states, path)
        or _explain_classifier(states, path)
        or _explain_prefix(states, path)
        or _nearest(states, path)
    )


def _explain_dino(states: States, path: Path) -> str:
    """For a part of a DINO checkpoint that is not known to be the teacher, which is the network that DINO evaluates."""
    if "teacher" not in states and "student" in states:
        return (
            f"{path} holds DINO's student without its teacher, and the teacher is what DINO evaluates; "
            "take the whole checkpoint.pth, or the released backbone"
        )
    for keys in states.values():
        if any(".last_layer." in f".{key}" and "head." in key for key in keys) and "teacher" not in states:
            return (
                f"{path} is one network out of a DINO checkpoint, and nothing tells whether it is the teacher; "
                "give the whole checkpoint.pth with its entry 'teacher', or the released backbone"
            )
    return ""


def _explain_classifier(states: States, path: Path) -> str:
    """For OpenMMLab's and solo-learn's classifiers, whose backbones have the key names of their pre-training files."""
    for keys in states.values():
        head = next((key for key in ("head.fc.weight", "classifier.weight") if key in keys), "")
        pretext = any(re.match(r"(projector|neck|predictor|decoder|head\.predictor)\.", key) for key in keys)
        if head and not pretext and any(key.startswith("backbone.") for key in keys):
            return (
                f"{path} is a fine-tuned or supervised classifier (backbone.* with {head} and neither projector nor "
                "neck): give its pre-training checkpoint, or to measure the classifier itself save its weights under "
                "torchvision's names (no 'backbone.' before them, the head as fc.weight and fc.bias)"
            )
    return ""


def _explain_prefix(states: States, path: Path) -> str:
    """For a file whose keys all share a prefix, such as a wrapper's."""
    for name, state in states.items():
        first, last = min(state), max(state)  # what these share, all share
        prefix = first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)]
        prefix = prefix.rpartition(".")[0]
        if prefix:
            bare = {key.removeprefix(f"{prefix}."): value for key, value in state.items()}
            inside = [found for found in formats_by_keys({name: bare}, "") if not contradictions(found)]
            becomes = (
                f"; without it the file would be {_names(inside)}, so save" if inside else "; if it is a wrapper, save"
            )
            return (
                f"every key of {path} starts with '{prefix}.'{becomes} "
                f"{{k.removeprefix('{prefix}.'): v for k, v in state.items()}}"
            )
    return ""


def _nearest(states: States, path: Path) -> str:
    scored: list[tuple[float, int, Format, list[str]]] = []
    for fmt in FORMATS:
        for name in fmt.under:
            if name in states:
                lacking = fmt.lacking(states[name])
                scored.append((len(lacking) / (len(fmt.has) + len(fmt.lacks)), len(scored), fmt, lacking))
    near = [
        f"{fmt.name}, but it {' and '.join(lacking[:2])}" for share, _, fmt, lacking in sorted(scored)[:3] if share < 1
    ]
    keys = [key for state in states.values() for key in state]
    shown = ", ".join(keys[:3])
    return f"{path} is no known format (keys {shown}, ...)" + (f"; it is near {'; '.join(near)}" if near else "")
