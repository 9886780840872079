"""How many cores this process may use: an executor that runs several jobs side by side gives each its share."""

from __future__ import annotations

import os

SHARE = "CIM_BENCH_CORES"  # environment variable of a job's process: its share of the cores


def machine_cores() -> int:
    """Cores that the operating system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_cores() -> int:
    """This process's share of the machine's cores."""
    return int(os.environ.get(SHARE, 0)) or machine_cores()
