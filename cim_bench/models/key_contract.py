"""Load a state dict only if its keys and shapes are exactly those that are expected."""

from __future__ import annotations

from collections.abc import Mapping, Set

from torch import Tensor, nn


def load_exact(
    net: nn.Module,
    state: Mapping[str, Tensor],
    *,
    what: str,
    missing: Set[str] = frozenset(),
    unexpected: Set[str] = frozenset(),
) -> None:
    """Load a state dict under an exact key contract: no silently random layer, no silently dropped one.

    Arguments and errors as in `check_keys`, but for the network in place of its state.
    """
    own = net.state_dict()
    check_keys(own, state, what=what, missing=missing, unexpected=unexpected)
    net.load_state_dict({k: v for k, v in state.items() if k in own}, strict=not missing)


def check_keys(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    what: str,
    missing: Set[str] = frozenset(),
    unexpected: Set[str] = frozenset(),
) -> None:
    """Hold a state dict to an exact contract of keys and shapes.

    Args:
        own: Of the network.
        state: What it is to load.
        what: Name of the source, for the message.
        missing: Keys that `state` must lack (the head to be trained).
        unexpected: Keys that `state` must have in excess (parts not needed).

    Raises:
        ValueError: Naming keys or shapes, if the contract is broken.
    """
    shapes = [
        f"{k} is {tuple(state[k].shape)}, the architecture has {tuple(own[k].shape)}"
        for k in own.keys() & state.keys()
        if own[k].shape != state[k].shape
    ]
    lost, extra = own.keys() - state.keys() - missing, state.keys() - own.keys() - unexpected
    broken = (missing & state.keys()) | (unexpected - state.keys())
    if shapes or lost or extra or broken:
        raise ValueError(
            f"{what} does not fit the architecture: "
            + "; ".join(
                f"{title} {', '.join(sorted(keys)[:4])}{' ...' if len(keys) > 4 else ''}"
                for title, keys in (
                    ("other shapes:", shapes),
                    ("missing", lost),
                    ("unexpected", extra),
                    ("against the contract", broken),
                )
                if keys
            )
        )
