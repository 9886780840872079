"""The confusion matrices that jobs of segmentation keep, as sums that agree with what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path

import numpy as np

from cim_bench.records.confusions import NUMBERS, read_confusions
from cim_bench.records.facets import FacetKey
from cim_bench.reports.stats.arrays import Counts


@dataclass(frozen=True, kw_only=True)
class ImageSums:
    """What a job found in each image.

    Attributes:
        ids: Of the images, sorted.
        classes: Names of the C classes.
        by_facets: (N, 3, C) counts as of `cim_bench.records.confusions.class_sums`, in the order of `ids`.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    by_facets: Mapping[FacetKey, Counts]

    def agree(self, metric: str, facets: FacetKey, value: float, n: int) -> bool:
        """Whether a recorded number is what these counts amount to."""
        images = self.by_facets.get(facets)
        return images is not None and len(images) == n and isclose(NUMBERS[metric](images.sum(0)), value, abs_tol=1e-9)


def read_image_sums(folder: Path, key: str) -> ImageSums:
    """The sums of a job's images.

    Args:
        folder: The job's.
        key: The job's.

    Raises:
        ValueError: As in `read_confusions`.
    """
    found = read_confusions(folder, key)
    order = np.argsort(np.array(found.ids))
    return ImageSums(
        ids=tuple(found.ids[place] for place in order),
        classes=found.classes,
        by_facets={facets: found.sums(dict(facets))[order] for facets in found.found},
    )
