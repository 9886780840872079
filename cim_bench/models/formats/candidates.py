"""Which formats a file may be of, by its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from cim_bench.models.formats.format import Format

States = Mapping[str, Mapping[str, Tensor]]  # state dicts by the top-level entry of the file that holds them
Candidate = tuple[Format, Mapping[str, Tensor]]


def fits_by_keys(states: States, formats: Sequence[Format], part: str) -> list[Candidate]:
    """Formats that claim every key of a state dict, and find all that they require; values are not looked at.

    Args:
        states: State dicts of one file.
        formats: Those to choose from.
        part: What the user asks for after ``#``, or "".

    Returns:
        Each format with the first state dict that it fits.
    """
    found = []
    for fmt in formats:
        for name in fmt.under:
            state = states.get(name, {})
            if fmt.part == part and state and not fmt.lacking(state) and not fmt.unknown(state):
                found.append((fmt, state))
                break
    return found


def without_contradictions(fits: Sequence[Candidate]) -> list[Candidate]:
    """Those whose values look as the format says."""
    return [(fmt, state) for fmt, state in fits if not fmt.contradictions(state)]


def names(fits: Sequence[Candidate], word: str = "or") -> str:
    """Names of formats, for messages."""
    return f" {word} ".join(fmt.name if fmt.method else f"{fmt.name} (whatever trained it)" for fmt, _ in fits)
