"""What an evaluator is given besides the model: data, seed, machine, and a folder for what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from cim_bench.data.images import ImageSet
from cim_bench.models.checkpoint import Meta, save_checkpoint
from cim_bench.records.outcomes import write_outcomes
from cim_bench.spec import Data, Machine

CLASSIFIER = "classifier"


@dataclass(frozen=True, kw_only=True)
class Context:
    """One evaluation job.

    Attributes:
        data: The image set to read.
        machine: Device, workers, micro-batch.
        seed: Of every random choice.
        folder: The job's own folder.
        subject: Identity of the weights.
        key: The job's key.
        main: False on all but the main process, which alone writes.
        warnings: Sentences that end up as footnotes of the job's cells.
    """

    data: Data
    machine: Machine
    seed: int
    folder: Path
    subject: Meta
    key: str = ""
    main: bool = True
    warnings: list[str] = field(default_factory=list)

    def train_images(self) -> ImageSet:
        """The split that may be learned from."""
        return ImageSet(self.data, self.data.train_split)

    def scored_images(self) -> ImageSet:
        """The split that is scored, for protocols that never look at the training split."""
        return ImageSet(self.data, self.data.val_split)

    def val_images(self) -> ImageSet:
        """The split that is scored, of a protocol that also learns.

        Raises:
            ValueError: If its classes are not those of the training split.
        """
        images = self.scored_images()
        known = self.train_images().classes
        if images.classes != known:
            odd = sorted(set(images.classes) ^ set(known))
            raise ValueError(
                f"{self.data.name}: {self.data.train_split} and {self.data.val_split} "
                f"differ in {len(odd)} classes, e.g. {odd[:3]}"
            )
        return images

    def save_outcomes(
        self, images: ImageSet, labels: Tensor, predictions: Mapping[str, Tensor], part: str = "all"
    ) -> None:
        """Keep the outcome of each sample (id, label, one prediction column a variant) in ``outcomes/PART.parquet``."""
        if self.main:
            ids = [images.image_id(i) for i in range(len(images))]
            answers = {variant: values.numpy() for variant, values in predictions.items()}
            write_outcomes(self.folder, part, ids, labels.numpy(), answers)

    def save_classifier(self, state: Mapping[str, Tensor], meta: Meta) -> None:
        """Keep the fine-tuned child checkpoint, which classifier evaluators use."""
        if self.main:
            save_checkpoint(self.folder / CLASSIFIER, state, meta)
