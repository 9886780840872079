"""What ``cim-bench visualize`` draws of jobs of segmentation: predictions over images, and the IoU of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cim_bench import registry
from cim_bench.jobs.resolved import FOLDER, read_benchmark
from cim_bench.records.confusions import find_job
from cim_bench.records.record import Record
from cim_bench.records.store import read_records
from cim_bench.spec import Data


def draw_segmentation(
    folders: Sequence[Path], output: Path, *, root: str | None = None, class_list: str | None = None
) -> list[Path]:
    """Draw one job, or two beside each other.

    Args:
        folders: Of jobs, or of subjects with one job of segmentation each.
        output: The PNG of the predictions; that of the classes' IoU is beside it, with ``-iou`` behind its name.
        root: Folder of the images; by default where the benchmark of the first job had them.
        class_list: File of class names, where the root has none.

    Returns:
        The files.

    Raises:
        ValueError: If a folder has no finished job of segmentation, if jobs are not of one set, or if the images are
            not known; as in `draw_predictions` and `draw_class_ious`.
    """
    from cim_bench.data.segmentation import SegmentationSet
    from cim_bench.evals.segmentation.pictures import Shown, draw_predictions
    from cim_bench.reports.segmentation_bars import draw_class_ious

    jobs = [_job(folder) for folder in folders]
    data, split = _data(*jobs[0], root, class_list)
    shown = [Shown(_title(record), job, record.key) for job, record in jobs]
    bars = output.with_name(f"{output.stem}-iou{output.suffix}")
    draw_predictions(shown, SegmentationSet(data, split), output)
    draw_class_ious(shown, bars)
    return [output, bars]


def _job(folder: Path) -> tuple[Path, Record]:
    job = find_job(folder) if folder.is_dir() else None
    record = next(read_records(job), None) if job and (job / "records.jsonl").exists() else None
    if job is None or record is None or record.measurement is None:
        raise ValueError(
            f"{folder} is no checkpoint that `cim-bench pretrain` made, and has no finished job of segmentation; "
            "give the folder of either"
        )
    return job, record


def _title(record: Record) -> str:
    return f"{record.subject.name}, {record.protocol.evaluator.removeprefix('segmentation_')}"


def _data(job: Path, record: Record, root: str | None, class_list: str | None) -> tuple[Data, str]:
    """The set that a job scored and its split, from the benchmarks that were run in its output folder."""
    measurement = record.measurement
    assert measurement is not None
    name, split = measurement.benchmark, measurement.split
    known = None if root else _known(job.parent.parent / FOLDER, name, split)
    if known is None and root is None:
        raise ValueError(f"where the images of {name}/{split} lie is not known to {job.parent.parent}; give --root")
    data = known or Data(name=name, root=root or "")
    return replace(data, class_list=class_list or data.class_list), split


def _known(benchmarks: Path, name: str, split: str) -> Data | None:
    for file in sorted(benchmarks.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            benchmark = read_benchmark(file)
        except ValueError:  # of classes that are not here, or of another version
            continue
        for evaluator in benchmark.evaluators.values():
            if registry.name_of("evaluators", type(evaluator)).startswith("segmentation"):
                for data, own in evaluator.reads(benchmark.data):
                    if (data.name, own) == (name, split):
                        return data
    return None
