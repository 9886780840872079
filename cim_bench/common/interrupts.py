"""Signals that ask a process to end: SIGINT (Ctrl-C) and SIGTERM, which is treated alike."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Python raises KeyboardInterrupt for SIGINT."""


@contextlib.contextmanager
def raising_terminated() -> Iterator[None]:
    """SIGTERM raises `Terminated`, so that what is under way is left as after Ctrl-C."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    with _handlers({signal.SIGTERM: stop}):
        yield


class Held:
    """Signals that are held back."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], Any]] = []

    @property
    def came(self) -> bool:
        """Whether there is one."""
        return bool(self._waiting)

    def note(self, act: Callable[[], Any]) -> None:
        """Hold one back."""
        self._waiting.append(act)

    def act(self) -> None:
        """Let the first act.

        Raises:
            Terminated: If none came here: another process of the group was asked to end.
        """
        if not self.came:
            raise Terminated
        self._waiting[0]()


@contextlib.contextmanager
def held_back(*, patient: bool = False) -> Iterator[Held]:
    """Hold SIGINT and SIGTERM back until they are let act, or until the end.

    Signals that Python does not handle (SIGTERM outside of the command) act as ever.

    Args:
        patient: Hold a second Ctrl-C back too, in place of letting it act at once: what starts several processes sends
            each the signal that the terminal has sent it already.
    """
    held = Held()

    def hold(handler: Handler) -> Handler:
        def note(number: int, frame: FrameType | None) -> None:
            if held.came and number == signal.SIGINT and not patient:
                handler(number, frame)
            held.note(lambda: handler(number, None))

        return note

    present = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with _handlers({number: hold(handler) for number, handler in present.items() if callable(handler)}):
        yield held
    if held.came:
        held.act()


def leave_to_parent() -> None:
    """In a loader worker: Ctrl-C is its parent's business, and SIGTERM ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _handlers(wanted: dict[signal.Signals, Handler]) -> Iterator[None]:
    """Install handlers, where this thread may, and put back what was there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
