"""Identify the format of a file: by all its keys, then its values, then what it says of itself, then the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from cim_bench.models.formats.candidates import Candidate, fits_by_keys, names, without_contradictions
from cim_bench.models.formats.explain import explain, foreign
from cim_bench.models.formats.format import Format, same_method
from cim_bench.models.formats.read import CONFIG, WeightsFile


@dataclass(frozen=True)
class Identified:
    """A state dict, its format, the method that trained it, and what told them.

    Attributes:
        format: Which format.
        method: Its method, or the user's word.
        state: With the file's own names.
        evidence: What told the format and the method; for a report.
    """

    format: Format
    method: str
    state: Mapping[str, Tensor]
    evidence: str


def identify(file: WeightsFile, formats: Sequence[Format], *, method: str, part: str) -> Identified:
    """The one format of a file.

    Args:
        file: The file.
        formats: Those to choose from; one alone where the user names it.
        method: The method that the user names, or "".
        part: What the user asks for after ``#``, or "".

    Raises:
        ValueError: If no format fits, several do and nothing tells which, or another one does than was asked for.
    """
    by_keys = fits_by_keys(file.states, formats, part)
    fits = without_contradictions(by_keys)
    if not fits:
        raise ValueError(foreign(file, formats) or explain(file.path, file.states, formats, by_keys, part))
    denials = [fmt.denied(file.args) for fmt, _ in fits]
    if all(denials):
        where = "its settings say" if file.args is not file.config else f"{CONFIG} beside it says"
        wanted = " or ".join(sorted({setting for fmt, _ in fits for setting in fmt.args if "=" in setting}))
        raise ValueError(
            f"{file.path} has the keys of {names(fits)}, but {where} {denials[0]}, not {wanted}; "
            "give a checkpoint in a format of docs/checkpoints.md, or mend the setting if it is not this file's"
        )
    fits = [fit for fit, denied in zip(fits, denials, strict=True) if not denied]
    said = [fit for fit in fits if fit[0].says(file.args)]
    open_ = [fit for fit in fits if fit[0].says(file.args) is None]
    left = said or open_ or fits
    fmt, state = _choose(left, method, formats, file)
    evidence = ["its keys", *(check.expect for check in fmt.checks)]
    if said:
        evidence.append(f"its settings ({', '.join(fmt.args)})")
    elif left is fits and not method:
        wanted = f"its settings are not those of {names(fits)} ({', '.join(fmt.args)})"
        raise ValueError(f"{file.path} has the keys of {names(fits)}, but {wanted}; name it with --method if it is one")
    if not fmt.method or len(left) > 1 or len(formats) == 1 or not (said or open_):
        others = ", ".join(other.name for other, _ in left if other is not fmt)
        evidence.append("as told" + (f": they are also those of {others}" if others else ""))
    return Identified(fmt, fmt.method or method, state, ", ".join(evidence))


def _choose(fits: Sequence[Candidate], method: str, formats: Sequence[Format], file: WeightsFile) -> Candidate:
    """The one fit that agrees with the user's word."""
    own = [fit for fit in fits if fit[0].method and (not method or same_method(fit[0].method, method))]
    rest = [fit for fit in fits if not fit[0].method]
    if len(own) == 1 and (method or not rest):
        return own[0]
    if len(own) > 1 and method:
        raise ValueError(
            f"{file.path} fits several formats, {names(own, 'and')}; save the state dict that you mean alone"
        )
    if not method:
        word = "name it with --method"
        raise ValueError(f"the keys of {file.path} are those of {names(fits)} and do not tell which: {word}")
    if not own and len(rest) == 1 and _may_be(method, rest[0][0], formats, file):
        return rest[0]
    lacks = any(fmt.args for fmt, _ in rest) and not file.args
    beside = f"; put its {CONFIG} beside it if it is an export of Hugging Face" if lacks else ""
    raise ValueError(f"{file.path} is {names(fits)}, {method} was asked for{beside}")


def _may_be(method: str, fmt: Format, formats: Sequence[Format], file: WeightsFile) -> bool:
    """Whether files of a format without a method may be of one: not where that has a format of its own.

    A ViT in timm's names is then in the wrong ones. A file that says itself that it is of `fmt` is compared with what
    says so by the same setting: Hugging Face's ViT (``model_type``) may be DINO's, and not DINOv2's.
    """
    if fmt.family == "resnet":
        return True
    rivals = [other for other in formats if other.family != "resnet" and same_method(method, other.method)]
    if fmt.says(file.args):
        rivals = [other for other in rivals if other.settings & fmt.settings]
    return not rivals
