"""Timing shared by the benchmarks: interleaved repeats, medians, Markdown rows, and the machine in words.

Used by the scripts beside it: ``python benchmarks/cim_inputs.py --help``, ``python benchmarks/cim_step.py --help``.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm.layers
import torch

Task = Callable[[], object]
# CPU seconds of this process leave out the time that a shared core spends on others'.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def interleaved(
    tasks: Mapping[str, Task], repeats: int, *, clock: str = "wall", cuda: bool = False
) -> dict[str, list[float]]:
    """Seconds of every repeat of every task; round by round, so that a noisy neighbour hits all alike.

    Args:
        tasks: What to time, by name.
        repeats: Rounds that count, after one that does not.
        clock: One of `CLOCKS`.
        cuda: Whether to wait for the accelerator on both sides of a task.
    """
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(1 + repeats):
        for name, task in tasks.items():
            if cuda:
                torch.cuda.synchronize()
            start = now()
            task()
            if cuda:
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(now() - start)
    return seconds


def median(values: list[float]) -> float:
    """Of the repeats: one disturbed repeat does not move it."""
    return statistics.median(values)


def ratio(slow: list[float], fast: list[float]) -> tuple[float, float, float]:
    """How many times faster, as ratio of medians, with the lowest and highest ratio of a single round."""
    rounds = [a / b for a, b in zip(slow, fast, strict=True)]
    return median(slow) / median(fast), min(rounds), max(rounds)


def row(*cells: object) -> str:
    """One row of a Markdown table; floats with three significant digits."""
    return "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"


def header(*cells: str) -> str:
    """A Markdown table's head."""
    return row(*cells) + "\n" + row(*("---" for _ in cells))


def machine(device: str = "cpu") -> str:
    """Processor, cores, threads in use, accelerator and versions, without the host's name."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else "no GPU used"
    packages = ("torch", "torchvision", "timm", "pillow", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    threads = f"{torch.get_num_threads()} thread(s) used"
    words = f"{os.cpu_count()}-core {platform.machine()} CPU ({_processor()}), {threads}, {gpu}"
    return f"{words}; Python {platform.python_version()}, {versions}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def public_code(path: Path) -> None:
    """Make a checkout of the public code importable (its packages are called ``util`` and ``models``).

    It was written for NumPy below 1.24, which still had ``np.float`` (Python's float under another name), and
    for timm below 1.0, whose layers have moved.

    Raises:
        SystemExit: If `path` holds no such checkout.
    """
    if not (path / "util" / "datasets.py").is_file():
        raise SystemExit(f"{path} is no checkout of weivision/Correlational-Image-Modeling: no util/datasets.py")
    if "float" not in vars(np):
        np.float = float  # type: ignore[attr-defined]  # noqa: NPY001
    sys.modules.setdefault("timm.models.layers", timm.layers)
    sys.path.insert(0, str(path))
