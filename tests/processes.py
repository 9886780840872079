"""Processes of tests: none of them depends on how fast the machine is."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

HANG_GUARD_S = 3600.0  # ends a test that would wait for ever; no time that a slow machine may need


def wait_until(met: Callable[[], bool], what: str) -> None:
    """Poll until `met()` is true.

    Args:
        met: Looks at something observable: a file, a line of a log, an exit status.
        what: It is named when the guard ends the wait.
    """
    end = time.monotonic() + HANG_GUARD_S
    while not met():
        assert time.monotonic() < end, f"no sign of {what} in {HANG_GUARD_S:.0f} s"
        time.sleep(0.02)


def in_two_processes(work: Callable[..., Any], *arguments: Any, meet: Path) -> None:
    """Call ``work(rank, *arguments)`` in two forked processes of one gloo group, and wait for both.

    Args:
        work: What each process does.
        arguments: The same for both.
        meet: A file that is not there yet, through which they find each other: no port that another test may have.
    """
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_member, args=(rank, meet, work, arguments)) for rank in range(2)]
    for child in children:
        child.start()
    try:
        wait_until(lambda: any(c.exitcode for c in children) or not any(c.is_alive() for c in children), "their end")
    finally:
        for child in children:
            child.kill()
            child.join()
    assert [child.exitcode for child in children] == [0, 0]


def _member(rank: int, meet: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in where.items()}, ACCELERATE_USE_CPU="true")
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    work(rank, *arguments)
    torch.distributed.barrier()  # destroying the group hangs now and then with torch 2.6, whose gloo joins its threads
