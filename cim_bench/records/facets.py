"""What distinguishes the numbers of one protocol, and the names of their outcome columns."""

from __future__ import annotations


def as_255(value: float) -> str:
    """A value on the scale of [0, 1] in grey levels: ``1/255``, ``0.5/255``, ``2.66667/255``."""
    return f"{round(value * 255, 6):g}/255"
