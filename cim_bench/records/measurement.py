"""What a number is: its metric, its value and the count it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cim_bench.records.facets import Facets, check_facets


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a metric's raw value means."""

    unit: str
    higher_is_better: bool
    low: float
    high: float


# Closed: a number whose metric is not listed here cannot be recorded.
METRICS: Mapping[str, Metric] = {
    "top1": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
    "top5": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
    "miou": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
    "miou_present": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
    "mean_accuracy": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
    "pixel_accuracy": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
    "mce": Metric(unit="ratio", higher_is_better=False, low=0.0, high=math.inf),
    "relative_mce": Metric(unit="ratio", higher_is_better=False, low=-math.inf, high=math.inf),
    "map_iou": Metric(unit="fraction", higher_is_better=True, low=0.0, high=1.0),
}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One raw number and the count it rests on.

    Attributes:
        benchmark: Data set that was measured, e.g. ``imagenet-1k``.
        split: Its split, e.g. ``val``.
        metric: A key of `METRICS`.
        value: Raw value in the metric's unit; a fraction in [0, 1], never a percentage.
        n: How many samples the value rests on; at least 1.
        facets: What distinguishes numbers of one protocol, e.g. ``{"k": 20}``; numbers are kept exactly.
        chance: What a guess has in the mean: 1 / classes, for the classes that answers are chosen from; ``None`` where
            nobody told. Tables say of a column that nothing in it can be told from a guess.

    Raises:
        ValueError: For an unknown metric or facet, an empty set, or a value or chance out of range.
    """

    benchmark: str
    split: str
    metric: str
    value: float
    n: int
    facets: Facets = field(default_factory=dict)
    chance: float | None = None

    def __post_init__(self) -> None:
        check_facets(self.facets)
        if self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is not known; choose one of {', '.join(sorted(METRICS))}")
        if self.n < 1:
            raise ValueError(
                f"{self.metric} on {self.benchmark}/{self.split} rests on n={self.n} samples; nothing was measured"
            )
        if self.chance is not None and not 0 < self.chance <= 1:
            raise ValueError(f"a guess is right in {self.chance} of all answers; chance lies in (0, 1]")
        metric = METRICS[self.metric]
        if not math.isfinite(self.value) or not metric.low <= self.value <= metric.high:
            raise ValueError(
                f"{self.metric} on {self.benchmark}/{self.split} is {self.value}, "
                f"outside [{metric.low}, {metric.high}] ({metric.unit})"
            )
