"""What stands in detectron2's places and is the project's: meta-architectures, mappers, order, and an evaluator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from cim_bench.common.seeds import seed_all
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.data.transforms import to_uint8
from cim_bench.engine.schedule import StepSampler
from cim_bench.evals.metrics import confusion_matrix
from cim_bench.evals.segmentation.samples import SegmentationSamples
from cim_bench.evals.segmentation.scoring import Keep, Scorer
from cim_bench.evals.segmentation.transforms import resize_to_bound
from cim_bench.records.confusions import Cells, to_cells
from cim_bench.spec import SlidingTest

CatalogRecord = dict[str, Any]


class TrainedSegmentor(nn.Module):
    """Meta-architecture of training: the network with its loss, whose draws depend on the seed and the step alone.

    Args:
        model: From a batch of ``image`` (B, 3, c, c) and ``mask`` (B, c, c), both uint8, to ``loss`` and more.
        seed: Of the run.
        step: The trainer's.
    """

    def __init__(self, model: nn.Module, seed: int, step: Callable[[], int]) -> None:
        super().__init__()
        self.model, self.seed, self.step = model, seed, step
        self.outputs: dict[str, float] = {}

    def forward(self, inputs: Sequence[CatalogRecord]) -> dict[str, Tensor]:
        """Losses, of which detectron2 takes the sum: ours has its weights in it already."""
        device = next(self.model.parameters()).device
        batch = {
            "image": torch.stack([one["image"] for one in inputs]).to(device),
            "mask": torch.stack([one["sem_seg"] for one in inputs]).to(device),
        }
        seed_all(self.seed, "step", self.step(), 0, 0)  # as `cim_bench.engine.fit` does before its first pass
        outputs: Mapping[str, Tensor] = self.model(batch)
        self.outputs = {name: float(value.detach()) for name, value in outputs.items()}
        return {"loss": outputs["loss"]}


class ScoredSegmentor(nn.Module):
    """Meta-architecture of testing: windows over each image, and logits of its own size.

    Args:
        network: What `scorer` asks.
        scorer: Of one way of testing.
    """

    def __init__(self, network: nn.Module, scorer: Scorer) -> None:
        super().__init__()
        self.network, self.scorer = network, scorer

    def forward(self, inputs: Sequence[CatalogRecord]) -> list[dict[str, Tensor]]:
        """``sem_seg``: (classes, H, W) logits of each image."""
        found = []
        for one in inputs:
            (logits,) = self.scorer.ways(one["index"], one["image"], one["sem_seg"])
            size = (one["height"], one["width"])
            found.append({"sem_seg": F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]})
        return found


class TrainMapper:
    """detectron2's mapper of training: a record and its draw to an augmented sample.

    Args:
        samples: Ours.
    """

    def __init__(self, samples: SegmentationSamples) -> None:
        self.samples = samples

    def __call__(self, record: CatalogRecord) -> CatalogRecord:
        """``image`` (3, c, c) and ``sem_seg`` (c, c), uint8, beside what the record holds."""
        sample = self.samples[record["draw"], record["index"]]
        height, width = sample["mask"].shape
        return {**record, "image": sample["image"], "sem_seg": sample["mask"], "height": height, "width": width}


class ScoreMapper:
    """detectron2's mapper of testing: a record to the resized image, with the size that it had.

    Args:
        images: The set.
        test: Its scale.
    """

    def __init__(self, images: SegmentationSet, test: SlidingTest) -> None:
        self.images, self.test = images, test

    def __call__(self, record: CatalogRecord) -> CatalogRecord:
        """``image`` (3, h, w) and ``sem_seg`` (H, W), uint8, beside what the record holds."""
        image, mask = self.images.read(record["index"])
        pixels = resize_to_bound(to_uint8(image), self.test.scale, antialias=self.test.antialias)
        height, width = mask.shape
        return {**record, "image": pixels, "sem_seg": mask, "height": height, "width": width}


class Drawn(Dataset[CatalogRecord]):
    """Mapped records by (draw, index): detectron2's own ``MapDataset`` knows whole numbers alone."""

    def __init__(self, records: Sequence[CatalogRecord], mapper: Callable[[CatalogRecord], CatalogRecord]) -> None:
        self.records, self.mapper = records, mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, where: tuple[int, int]) -> CatalogRecord:
        draw, index = where
        return self.mapper({**self.records[index], "draw": draw})


class Order(Sampler[tuple[int, int]]):
    """(draw, index) one by one, in the order of the project's own engine; detectron2 batches them again."""

    def __init__(self, batches: StepSampler) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches) * self.batches.batch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for batch in self.batches:
            yield from batch


class Kept:
    """An evaluator beside ``SemSegEvaluator``: a confusion matrix an image, and its prediction for pictures."""

    def __init__(self, classes: int, keep: Keep | None) -> None:
        self.classes, self.keep = classes, keep
        self.cells: list[Cells] = []

    def reset(self) -> None:
        """Before a pass."""
        self.cells = []

    def process(self, inputs: Sequence[CatalogRecord], outputs: Sequence[Mapping[str, Tensor]]) -> None:
        """One batch."""
        for one, output in zip(inputs, outputs, strict=True):
            predicted = output["sem_seg"].argmax(dim=0).to(torch.uint8)
            if self.keep is not None:
                self.keep(one["index"], predicted)
            matrix = confusion_matrix(one["sem_seg"].to(predicted.device), predicted, self.classes)
            self.cells.append(to_cells(matrix.cpu().numpy()))

    def evaluate(self) -> None:
        """Nothing of its own."""
