"""Recipes by name or from a user's file, and their fields overridden from the command line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def override(recipe: T, arguments: Sequence[str], prog: str) -> T:
    """Change fields of a recipe by their dotted names, e.g. ``--training.epochs 5``.

    Raises:
        ValueError: One sentence, for an unknown name or a value of the wrong type.
    """
    import tyro

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                type(recipe), default=recipe, args=list(arguments), prog=prog, config=(tyro.conf.AvoidSubcommands,)
            )
    except ValueError as error:  # tyro 1.0.0 lets through what the recipe's own class refuses
        raise ValueError(f"{error} (`{prog} --help` lists every field)") from error
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_sentence(errors.getvalue(), prog)) from None


def _one_sentence(panel: str, prog: str) -> str:
    """tyro's error panel without its title, frame and hints."""
    lines = [re.sub(r"[│╭╮╰╯─]+", " ", line).strip() for line in panel.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    text = re.split(r"Argument helptext|For full helptext", text)[0]
    text = re.sub(r"  +", " ", text).strip(" .")
    if refused := re.fullmatch(
        r"Error parsing (\S+): (([A-Z]\w*)\..*)", text
    ):  # of a class where it stands in the recipe
        where, sentence, kind = refused.groups()
        text = re.sub(rf"\b{kind}\.", f"{where}.", sentence)
    return f"{text} (`{prog} --help` lists every field)"
