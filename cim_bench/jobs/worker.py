"""A process that runs jobs of a written benchmark: some by name, or batch after batch as its executor sends them."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from cim_bench import registry
from cim_bench.common.progress import report_progress_to, tell
from cim_bench.contracts.executor import Job, JobResult
from cim_bench.jobs.resolved import FOLDER, read_benchmark
from cim_bench.jobs.runner import Runner


def open_runner(file: Path, load: Sequence[str] = ()) -> Runner:
    """The runner of a benchmark's file, in the output folder that holds it.

    Args:
        file: ``OUTPUT/benchmarks/HASH.json``, as `cim_bench.jobs.resolved.write_benchmark` made it.
        load: Modules and recipe files with classes of the user's own. **They are executed.**

    Raises:
        ValueError: If the file is not a benchmark, or a module cannot be loaded.
    """
    for name in load:
        registry.load_module(name)
    if file.parent.name != FOLDER:
        raise ValueError(
            f"{file} is not in a folder {FOLDER}/ of an output folder; give one that `cim-bench run` wrote"
        )
    return Runner(read_benchmark(file), file.parent.parent)


def run_jobs(runner: Runner, names: Sequence[str], on_end: Callable[[JobResult], None]) -> bool:
    """Run jobs together by name; false if one failed.

    Raises:
        ValueError: Naming a job that the benchmark does not have.
    """
    results = list(runner.run_here(find_jobs(runner, names)))
    for result in results:
        on_end(result)
    return all(result.status not in ("failed", "blocked") for result in results)


def find_jobs(runner: Runner, names: Sequence[str]) -> list[Job]:
    """Jobs by name.

    Raises:
        ValueError: Naming one that the benchmark does not have.
    """
    known = runner.states.jobs
    for name in names:
        if name not in known:
            raise ValueError(f"the benchmark has no job {name!r}; its jobs are {', '.join(known)}")
    return [known[name] for name in names]


def follow(runner: Runner) -> None:
    """Run batches as they come: a JSON list of job names a line on standard input; its end ends the process.

    Lines that begin with `cim_bench.common.progress.PREFIX` hold a JSON object for the executor: now and then
    ``{"progress": [title, done, total, note]}``, and ``{"idle": true}`` after each batch. Whatever else is printed is
    for people. A process that has work when its executor dies ends at once: the same command, started again, must find
    nobody at work on its jobs.
    """
    report_progress_to(sys.stdout)
    # A forked loader worker closes sys.stdin, and would wait for ever for a thread that reads from it.
    stream, sys.stdin = os.fdopen(os.dup(0)), Path(os.devnull).open()  # noqa: SIM115
    batches: queue.Queue[list[str] | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_read_batches, args=(stream, batches, busy), daemon=True).start()
    while (names := batches.get()) is not None:
        for _result in runner.run_here(find_jobs(runner, names)):
            pass  # the executor reads how they ended from their records
        busy.clear()
        tell(sys.stdout, idle=True)


def _read_batches(stream: TextIO, batches: queue.Queue[list[str] | None], busy: threading.Event) -> None:
    for line in stream:
        busy.set()
        batches.put(json.loads(line))
    if busy.is_set():
        os._exit(1)
    batches.put(None)
