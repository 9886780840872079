"""Identify the format of a file: by all its keys, then its values, then what it says of itself, then the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from cim_bench.models.formats.candidates import Candidate, fits_by_keys, names, without_contradictions
from cim_bench.models.formats.explain import explain
from cim_bench.models.formats.format import Format, same_method
from cim_bench.models.formats.read import WeightsFile


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
        raise ValueError(explain(file.path, file.states, formats, by_keys, part))
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
    if not own and len(rest) == 1 and _may_be(method, rest[0][0], formats):
        return rest[0]
    raise ValueError(f"{file.path} is {names(fits)}, {method} was asked for")


def _may_be(method: str, fmt: Format, formats: Sequence[Format]) -> bool:
    """Whether files with timm's names may be of a method: not where it publishes ViTs in a format of its own."""
    return fmt.family == "resnet" or not any(same_method(method, f.method) for f in formats if f.family != "resnet")
