"""What a slot's process is given of the machine."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cim_bench.common.cores import SHARE, machine_cores


def slot_environment(taken: Sequence[int], slots: int, gpus: int) -> dict[str, str]:
    """Environment of a process: its share of the cores, and its own GPUs.

    Args:
        taken: The slots that it takes, from 0.
        slots: In all.
        gpus: Of this machine; 0 for none.
    """
    cores = max(1, machine_cores() // slots)
    own = {SHARE: str(cores), "OMP_NUM_THREADS": str(cores)}
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        own["CUDA_VISIBLE_DEVICES"] = ",".join(visible[slot] for slot in taken)
    return {**os.environ, **own}
