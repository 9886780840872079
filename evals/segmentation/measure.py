"""From confusion matrices of single images to what is measured: pure sums, one division at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cim_bench.contracts.context import Context, MaskedImages
from cim_bench.records.confusions import NUMBERS, Cells, class_sums
from cim_bench.records.facets import Facets, column_name
from cim_bench.records.measurement import Measurement


def measurements(
    ctx: Context, images: MaskedImages, found: Sequence[tuple[Facets, Sequence[Cells]]]
) -> Iterator[Measurement]:
    """Keep the confusion matrices of a job, and yield the numbers of the whole set that follow from them.

    Args:
        ctx: The job's.
        images: The set.
        found: Facets and one matrix an image, in the set's order, the same on every process.

    Raises:
        ValueError: If no pixel of the set has a label; or as in `Context.save_confusions`.
    """
    ctx.save_confusions(images, found)
    place: dict[str, Any] = {"benchmark": images.name, "split": images.split, "n": len(images)}
    for facets, matrices in found:
        sums = class_sums(matrices, len(images.classes)).sum(0)
        if not sums.any():
            raise ValueError(f"{images.name}/{images.split}: no pixel has a label; there is nothing to measure")
        if (sums[2] > 0).sum() == 1 < (sums[1] > 0).sum():
            under = f" under {column_name(facets, ctx.protocol.settings)}" if len(found) > 1 else ""
            ctx.warnings.append(f"all pixels were taken for one class{under}: the model does not tell them apart")
        for metric, number in NUMBERS.items():
            yield Measurement(metric=metric, value=float(number(sums)), facets=facets, **place)
