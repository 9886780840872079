"""What can be removed from an output folder: nothing that its present benchmark refers to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cim_bench.common.errors import one_sentence
from cim_bench.common.files import safe_name, unfinished_writes
from cim_bench.contracts.features import FEATURES
from cim_bench.engine.resume import RESUME
from cim_bench.jobs.resolved import FOLDER
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.worker import open_runner

TEMPORARY = re.compile(r"\..+\.(md|csv|json)\.\w{8}")  # as `write_atomic` calls them
JOB_FOLDER = re.compile(r"(?P<name>.+)-(?P<key>[0-9a-f]{12}|failed)")


@dataclass(frozen=True, kw_only=True)
class Removable:
    """A file or folder that the present benchmark does not need.

    Attributes:
        path: Which.
        reason: Why nobody needs it.
        size: In bytes, with all below it.
    """

    path: Path
    reason: str
    size: int

    def remove(self) -> None:
        """Remove it."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink()


@dataclass(frozen=True, kw_only=True)
class CleanPlan:
    """What can be removed from one output folder.

    Attributes:
        benchmark: File of the present benchmark, the one that was run last.
        removable: What it does not refer to.
        kept: Why some folders stay although it is not known whether it refers to them, a sentence each.
    """

    benchmark: Path
    removable: tuple[Removable, ...]
    kept: tuple[str, ...]


def find_outputs(runs: Path) -> list[Path]:
    """Output folders at or below a folder.

    Raises:
        ValueError: If there are none.
    """
    found = sorted({file.parent.parent for file in runs.rglob(f"{FOLDER}/*.json")})
    if not found:
        raise ValueError(f"{runs} holds no output folder with {FOLDER}/; give one that `cim-bench run` has written")
    return found


def plan_cleaning(output: Path, load: Sequence[str] = ()) -> CleanPlan:
    """Find what the benchmark that was run last in an output folder does not refer to.

    Args:
        output: The folder.
        load: Modules and recipe files with classes that the benchmark uses and that are not registered.

    Raises:
        ValueError: If its benchmark cannot be read.
    """
    newest, *older = sorted((output / FOLDER).glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    runner = open_runner(newest, load)
    folders, unknown = _referred(runner)
    found = [_removable(file, "a benchmark that was run before the present one") for file in older]
    subjects = {runner.states.subjects.folder(name) for name in runner.benchmark.subjects}
    for folder in sorted(path for path in output.iterdir() if path.is_dir() and not path.is_symlink()):
        if folder.name == FOLDER or folder.name.startswith("."):
            continue
        jobs = [path for path in sorted(folder.iterdir()) if JOB_FOLDER.fullmatch(path.name) and path.is_dir()]
        for path in jobs:
            if reason := _reason(path, folder in subjects, folders, unknown):
                found.append(_removable(path, reason))
    found += [_removable(path, "the resume point of a finished job") for path in _finished(folders, RESUME)]
    found += [_removable(path, "the features of a finished job") for path in _finished(folders, FEATURES)]
    found += [_removable(path, "a write that was cut off") for path in _cut_off(output, folders)]
    kept = [f"{name}: {reason}" for name, reason in sorted(unknown.values())]
    return CleanPlan(benchmark=newest, removable=tuple(found), kept=tuple(kept))


def _referred(runner: Runner) -> tuple[dict[Path, bool], dict[Path, tuple[str, str]]]:
    """Folders of jobs, finished or not; of jobs whose folder cannot be told, its stem with name and reason."""
    folders: dict[Path, bool] = {}
    unknown: dict[Path, tuple[str, str]] = {}
    for job in runner.jobs:
        states = runner.states
        try:
            pretraining = job.kind == "pretrain"
            folder = states.subjects.pretraining(job.subject)[1] if pretraining else states.evaluation(job).folder
            folders[folder] = states.progress(job) == "finished"
        except (ValueError, OSError) as error:
            stem = states.subjects.folder(job.subject) / safe_name(job.evaluator or "pretrain")
            unknown[stem] = job.name, one_sentence(error)
    return folders, unknown


def _reason(path: Path, is_subject: bool, folders: dict[Path, bool], unknown: dict[Path, tuple[str, str]]) -> str:
    """Why a job's folder can be removed; empty if it stays."""
    match = JOB_FOLDER.fullmatch(path.name)
    assert match is not None
    if match["key"] == "failed":
        return "the record of a failed job"
    if path in folders or path.parent / match["name"] in unknown:
        return ""
    if not is_subject:
        return f"the present benchmark has no subject {path.parent.name}"
    return "no job of the present benchmark has this key"


def _finished(folders: dict[Path, bool], name: str) -> Iterator[Path]:
    """What finished jobs no longer need: what is called so, or was set aside."""
    return (path for folder, finished in folders.items() if finished for path in folder.glob(f"{name}*"))


def _cut_off(output: Path, folders: Iterable[Path]) -> Iterator[Path]:
    """Temporary files of tables and benchmarks, and those in the folders of jobs."""
    for folder in (output, output / FOLDER):
        yield from (path for path in sorted(folder.glob(".*")) if TEMPORARY.fullmatch(path.name) and path.is_file())
    for folder in folders:
        yield from unfinished_writes(folder)


def _removable(path: Path, reason: str) -> Removable:
    files = path.rglob("*") if path.is_dir() else [path]
    return Removable(path=path, reason=reason, size=sum(f.lstat().st_size for f in files if not f.is_dir()))
