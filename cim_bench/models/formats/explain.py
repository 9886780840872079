"""Why a file is of no known format, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cim_bench.models.formats.candidates import Candidate, States, fits_by_keys, names, without_contradictions
from cim_bench.models.formats.format import Format
from cim_bench.models.formats.read import CONFIG, WeightsFile


def explain(path: Path, states: States, formats: Sequence[Format], by_keys: Sequence[Candidate], part: str) -> str:
    """One sentence.

    Args:
        path: The file.
        states: Its state dicts.
        formats: Those that were tried.
        by_keys: Those that its keys fit, and its values do not.
        part: What the user asks for after ``#``, or "".
    """
    if by_keys:
        reasons = [f"not {fmt.name}, for {' and '.join(fmt.contradictions(state))}" for fmt, state in by_keys[:3]]
        return f"{path} has the keys of a known format and not its values: it is {'; '.join(reasons)}"
    if almost := _almost(states, [fmt for fmt in formats if fmt.part == part], path):
        return almost
    if part:
        parts = sorted({fmt.part for fmt in formats if fmt.part})
        plain = without_contradictions(fits_by_keys(states, formats, ""))
        known = f"; parts of known formats are {', '.join(parts)}"
        return f"{path} has no part {part!r}" + (f": it is {names(plain)}; open it without #{part}" if plain else known)
    return (
        _dino(states, path)
        or _classifier(states, path)
        or _prefix(states, formats, path)
        or _nearest(states, formats, path)
    )


def foreign(file: WeightsFile, formats: Sequence[Format]) -> str:
    """For a model of Hugging Face's transformers that is of no known format; empty for any other file.

    transformers 5 has other names in memory than ``save_pretrained`` writes (its conversion_mapping.py).
    """
    keys = "\n".join(key for state in file.states.values() for key in state)
    if "embeddings.patch_embeddings.projection." in keys and re.search(r"\.attention\.q_proj\.weight$", keys, re.M):
        return (
            f"{file.path} has the names that a model of transformers has in memory; save it with "
            "model.save_pretrained(FOLDER), and give FOLDER"
        )
    told = {setting.partition("=")[2] for fmt in formats for setting in fmt.args if setting.startswith("model_type=")}
    model = file.config.get("model_type")
    if model and model not in told:
        return (
            f"{file.path} is an export of Hugging Face's model {model}, by the {CONFIG} beside it, and of their models "
            f"{', '.join(sorted(told)) or 'none'} are read; give the checkpoint of the project that trained it"
        )
    return ""


def _almost(states: States, formats: Sequence[Format], path: Path) -> str:
    """For a file that has all that a format requires, and some keys more."""
    found: list[tuple[int, int, str]] = []
    for number, fmt in enumerate(formats):
        for name in fmt.under:
            state = states.get(name, {})
            if state and not fmt.lacking(state) and len(unknown := fmt.unknown(state)) < len(state) / 4:
                keys = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
                found.append(
                    (len(unknown), number, f"it has the keys of {fmt.name}, and {keys}, which no such file has")
                )
    return f"{path} is no known format: {min(found)[2]}" if found else ""


def _dino(states: States, path: Path) -> str:
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


def _classifier(states: States, path: Path) -> str:
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


def _prefix(states: States, formats: Sequence[Format], path: Path) -> str:
    """For a file whose keys all share a prefix, such as a wrapper's."""
    for name, state in states.items():
        first, last = min(state), max(state)  # what these share, all share
        prefix = first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)]
        prefix = prefix.rpartition(".")[0]
        if prefix:
            bare = {key.removeprefix(f"{prefix}."): value for key, value in state.items()}
            inside = without_contradictions(fits_by_keys({name: bare}, formats, ""))
            becomes = f"; without it the file would be {names(inside)}, so" if inside else "; if it is a wrapper,"
            return (
                f"every key of {path} starts with '{prefix}.'{becomes} save "
                f"{{k.removeprefix('{prefix}.'): v for k, v in state.items()}}"
            )
    return ""


def _nearest(states: States, formats: Sequence[Format], path: Path) -> str:
    """The formats of which the smallest share of requirements and keys fails, and what fails."""
    scored: list[tuple[float, int, str]] = []
    for number, fmt in enumerate(formats):
        for name in fmt.under:
            state = states.get(name, {})
            lacking, unknown = fmt.lacking(state), fmt.unknown(state)
            share = len(lacking) / max(len(fmt.has), 1) + len(unknown) / max(len(state), 1)
            if state and share < 1:
                wrong = [f"has no {key}" for key in lacking] + [f"has {key}" for key in unknown]
                more = f" and {len(wrong) - 2} more" if len(wrong) > 2 else ""
                scored.append((share, number, f"{fmt.name}, but it {' and '.join(wrong[:2])}{more}"))
    near = [words for _, _, words in sorted(scored)[:3]]
    shown = ", ".join([key for state in states.values() for key in state][:3])
    return f"{path} is no known format (keys {shown}, ...)" + (f"; it is near {'; '.join(near)}" if near else "")
