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


@contextlib.contextmanager
def held_back() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Hold SIGINT and SIGTERM back until they are asked for, or until the end; a second Ctrl-C acts at once.

    Signals that Python does not handle (SIGTERM outside of the command) act as ever.

    Yields:
        A function that, if a signal came, calls its argument and lets the signal act.
    """
    waiting: list[Callable[[], Any]] = []

    def hold(handler: Handler) -> Handler:
        def note(number: int, frame: FrameType | None) -> None:
            if waiting and number == signal.SIGINT:
                handler(number, frame)
            waiting.append(lambda: handler(number, None))

        return note

    def let_act(before: Callable[[], None]) -> None:
        if waiting:
            try:
                before()
            finally:
                waiting[0]()

    present = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with _handlers({number: hold(handler) for number, handler in present.items() if callable(handler)}):
        yield let_act
    let_act(lambda: None)


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
