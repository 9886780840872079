"""Processes, devices and threads of the running job."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from cim_bench.common.interrupts import leave_to_parent
from cim_bench.spec import Machine

LAUNCH = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what accelerate and torchrun tell each process


def is_main() -> bool:
    """Whether this is the process that writes files and prints progress; raises as `launch`."""
    return launch()[0] == 0


def process_count() -> int:
    """Processes that were started together with this one, by accelerate or torchrun; raises as `launch`."""
    return launch()[1]


def launch() -> tuple[int, int]:
    """Number of this process, and of those that were started together.

    Raises:
        ValueError: If the environment tells a part of that, as it is left over from another program: this process
            would wait for others that do not exist, or leave all writing to them.
    """
    told = {name: os.environ[name] for name in LAUNCH if os.environ.get(name)}
    if not told.keys() & {"RANK", "WORLD_SIZE"}:
        return 0, 1
    rank, count = told.get("RANK", "0"), told.get("WORLD_SIZE", "1")
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    if (len(told) < len(LAUNCH) and not joined) or not (rank + count).isdecimal() or int(rank) >= int(count):
        shown = ", ".join(f"{name}={value}" for name, value in told.items())
        raise ValueError(
            f"the environment has {shown}, which no start of several processes sets so; unset them, or start the "
            f"command with `accelerate launch`, which sets {', '.join(LAUNCH)}"
        )
    return int(rank), int(count)


def gpu_count() -> int:
    """GPUs that this process may use."""
    return torch.cuda.device_count()


def free_memory_gb() -> float:
    """Main memory that new processes may take, in GB; infinity where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return math.inf


def device_name(device: str) -> str:
    """The accelerator's name, or the processor's with the number of threads of this process."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def make_accelerator(machine: Machine, precision: str = "fp32") -> Accelerator:
    """Accelerate's engine for this process; its settings may differ from one job to the next.

    Raises:
        ValueError: If this machine cannot do the precision.
    """
    # without this, several processes on a machine without GPU would not know of each other
    on_cpu = machine.device == "cpu" or (process_count() > 1 and not torch.cuda.is_available())
    AcceleratorState._reset_state(reset_partial_state=on_cpu)
    mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[precision]
    return Accelerator(mixed_precision=mixed, cpu=on_cpu)


def one_thread(_: int) -> None:
    """``worker_init_fn`` of a DataLoader: torch takes one thread, since several workers share the cores."""
    torch.set_num_threads(1)
    leave_to_parent()
