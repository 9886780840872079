"""Two subjects on the same images: differences with paired intervals and tests, from the outcomes that jobs kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cim_bench.reports.read.jobs import Job, Place, aligned, jobs_of, unpaired
from cim_bench.reports.read.outcomes import column_of, hits, wrong
from cim_bench.reports.render.text import grid, plain
from cim_bench.reports.stats.mce import VARIANTS, image_mce
from cim_bench.reports.stats.paired import bootstrap_mean, discordant, mcnemar, paired_bootstrap
from cim_bench.reports.tables.footnotes import DASH


def compare(a: Path, b: Path, seed: int = 0) -> str:
    """Compare two subjects wherever both have measured top-1 on the same images, joined by image id.

    A row for each evaluator, benchmark and variant: accuracy of both, their difference with a 95 % bootstrap
    interval over images, how many images only one of them has right, and McNemar's exact p. Below, the difference
    in mCE where both measured all corruptions.

    Args:
        a: Folder of a subject in an output folder, such as ``runs/demo/CIM``.
        b: Folder of the other.
        seed: Of the bootstrap.

    Returns:
        Markdown.

    Raises:
        ValueError: If a folder is none or has no measured records, if nothing can be paired, if the two measured
            different images or labels under one name, or if outcomes cannot be read.
    """
    ours, theirs = jobs_of(a), jobs_of(b)
    rows, corrupted, left_out = [], [], list[str]()
    for place in sorted(ours.keys() & theirs.keys()):
        pair = ours[place], theirs[place]
        if reason := unpaired(*pair):
            left_out.append(f"left out: {' '.join(place[:2])}, {reason}")
            continue
        frames = aligned(place, pair)
        for variant in (name for name in pair[0].records if name in pair[1].records):
            if row := _row(variant, pair, frames, seed):
                rows.append([*place[:2], variant or DASH, *row])
            else:
                name = " ".join(filter(None, (*place[:2], variant)))
                left_out.append(f"left out: {name}, the outcomes kept are not those behind the records")
        if place[0] == "corruptions" and (row := _mce_row(frames, seed)):
            corrupted.append([place[1], *row])
        left_out.extend(_settings_note(place, pair))
    if not rows:
        reasons = f": {'; '.join(left_out)}" if left_out else ""
        raise ValueError(f"{a} and {b} have no outcomes of the same evaluation to compare{reasons}")
    return _text((a, b), rows, corrupted, left_out)


def _row(variant: str, pair: tuple[Job, Job], frames: tuple[pd.DataFrame, pd.DataFrame], seed: int) -> list[str] | None:
    """Numbers of one variant; ``None`` if the outcomes do not amount to what was recorded."""
    found = []
    for job, frame in zip(pair, frames, strict=True):
        measurement, column = job.records[variant].measurement, column_of(frame, variant)
        assert measurement is not None
        if column is None:
            return None
        present, hit = hits(frame, column)
        if hit.size != measurement.n or abs(hit.mean() - measurement.value) > 1e-9:
            return None
        found.append((present, hit))
    (images, one), (others, two) = found
    if not np.array_equal(images, others):
        return None
    low, high = paired_bootstrap(one, two, seed)
    only_a, only_b = discordant(one, two)
    return [
        f"{len(one):,}",
        f"{100 * one.mean():.1f}",
        f"{100 * two.mean():.1f}",
        _difference((only_a - only_b) / len(one), low, high),
        f"{only_a:,}",
        f"{only_b:,}",
        _p_value(mcnemar(one, two)),
    ]


def _mce_row(frames: tuple[pd.DataFrame, pd.DataFrame], seed: int) -> list[str] | None:
    """Numbers of mCE, over the images that both have under all corruptions; ``None`` if either lacks one."""
    if not all(name in frame for name in VARIANTS for frame in frames):
        return None
    (rows, one), (others, two) = (wrong(frame, VARIANTS) for frame in frames)
    if not rows.index.equals(others.index) or rows.empty:
        return None
    shares = image_mce(one), image_mce(two)
    low, high = bootstrap_mean(shares[0] - shares[1], seed)
    values = [float(share.mean()) for share in shares]
    difference = _difference(values[0] - values[1], low, high)
    return [f"{len(rows):,}", f"{100 * values[0]:.1f}", f"{100 * values[1]:.1f}", difference]


def _difference(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _settings_note(place: Place, pair: tuple[Job, Job]) -> list[str]:
    passed = [job.first.protocol.passed for job in pair]
    differing = sorted(k for k in passed[0].keys() | passed[1].keys() if passed[0].get(k) != passed[1].get(k))
    partial = ["only a part of the images was measured"] if any(j.first.protocol.partial for j in pair) else []
    settings = [f"A and B differ in {', '.join(differing)}"] if differing else []
    return [f"{' '.join(place[:2])}: {note}" for note in (*settings, *partial)]


def _text(
    folders: tuple[Path, Path], rows: Sequence[Sequence[str]], corrupted: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    header = ["Evaluator", "Benchmark", "Variant", "n", "A (%)", "B (%)", "A − B [95%]", "only A", "only B", "p"]
    blocks = [
        f"### A: {plain(str(folders[0]))}, B: {plain(str(folders[1]))}",
        "Top-1 on the same images: difference with a 95% bootstrap interval over images, images that only one has "
        "right,\nand McNemar's exact two-sided p, not corrected for the number of rows.",
        _grid(header, rows),
    ]
    if corrupted:
        header = ["Benchmark", "n", "mCE A (%)", "mCE B (%)", "A − B [95%]"]
        blocks += [
            "mCE, lower is better; the bootstrap is over images with all their corruptions.",
            _grid(header, corrupted),
        ]
    blocks.append("\n".join(f"- {plain(note)}" for note in notes))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return grid([[title, *(plain(text) for text in column)] for title, *column in zip(header, *rows, strict=True)])
