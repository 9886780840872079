"""What an evaluator is given besides the model: data, seed, machine, and a folder for what it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cim_bench.data.images import ImageSet, share_images
from cim_bench.models.checkpoint import Meta, save_checkpoint
from cim_bench.records.confusions import Cells, confusions_file, write_confusions
from cim_bench.records.facets import Facets
from cim_bench.records.outcomes import outcomes_file, write_outcomes
from cim_bench.records.predictions import is_shown, prediction_file, write_prediction
from cim_bench.records.record import ProtocolInfo
from cim_bench.spec import Data, Machine

CLASSIFIER = "classifier"


class MaskedImages(Protocol):
    """What is told of a set with masks: `cim_bench.data.segmentation.SegmentationSet` is one, and views of it are."""

    name: str
    split: str
    classes: tuple[str, ...]

    def __len__(self) -> int: ...
    def image_id(self, index: int) -> str:
        """The image's name in the set."""
        ...


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
        protocol: The evaluator as records name it; its settings tell how outcome columns are called.
        main: False on all but the main process, which alone writes.
        warnings: Sentences that end up as footnotes of the job's cells.
    """

    data: Data
    machine: Machine
    seed: int
    folder: Path
    subject: Meta
    key: str = ""
    protocol: ProtocolInfo = field(default_factory=lambda: ProtocolInfo(evaluator="", version=0))
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
            ValueError: If its classes are not those of the training split, if there is only one, or if it holds images
                of the training split.
        """
        images, train = self.scored_images(), self.train_images()
        if images.classes != train.classes:
            odd = sorted(set(images.classes) ^ set(train.classes))
            raise ValueError(
                f"{self.data.name}: {self.data.train_split} and {self.data.val_split} "
                f"differ in {len(odd)} classes, e.g. {odd[:3]}"
            )
        if len(images.classes) == 1:
            raise ValueError(
                f"{self.data.name} has no classes to tell apart: all of its images lie in one folder; "
                "sort them into class folders"
            )
        if share_images(train, images):
            raise ValueError(
                f"{self.data.name}: {self.data.train_split} and {self.data.val_split} are the same images, or one "
                "lies in the other, and a score on images that were learned from means nothing; set --data.train-split "
                "and --data.val-split, or --data.root"
            )
        return images

    def save_outcomes(
        self,
        images: ImageSet,
        labels: Tensor,
        predictions: Tensor | Sequence[tuple[Facets, Tensor]],
        part: str = "all",
    ) -> None:
        """Keep the outcome of each sample in ``outcomes/PART.parquet``: its id, its label, and what was predicted.

        Args:
            images: The set.
            labels: (N,) on the CPU, in the set's order.
            predictions: (N,) likewise; where one protocol makes several, pairs of their facets and such a tensor.
            part: Name of the file.

        Raises:
            ValueError: If facets are unknown, or two of them would share a column.
            OSError: Naming the file, if it cannot be written.
        """
        if self.main:
            ids = [images.image_id(i) for i in range(len(images))]
            pairs = [({}, predictions)] if isinstance(predictions, Tensor) else predictions
            answers = [(facets, values.numpy()) for facets, values in pairs]
            write_outcomes(outcomes_file(self.folder, part), ids, labels.numpy(), answers, self.protocol, self.key)

    def save_confusions(
        self, images: MaskedImages, found: Sequence[tuple[Facets, Sequence[Cells]]], part: str = "all"
    ) -> None:
        """Keep the confusion matrix of each image in ``confusions/PART.parquet``.

        Args:
            images: The set.
            found: Facets and one matrix an image, in the set's order.
            part: Name of the file.

        Raises:
            ValueError: As in `write_confusions`.
            OSError: Naming the file, if it cannot be written.
        """
        if self.main:
            ids = [images.image_id(i) for i in range(len(images))]
            file = confusions_file(self.folder, part)
            write_confusions(file, ids, images.classes, found, self.protocol, self.key)

    def save_prediction(self, images: MaskedImages, index: int, predicted: Tensor) -> None:
        """Keep the predicted mask of an image as ``predictions/ID.png``, if it is one of the few that are kept.

        Whichever process has the image may call this.

        Args:
            images: The set.
            index: Of the image in the set.
            predicted: (H, W) class indices, on any device, at the image's own size.

        Raises:
            OSError: Naming the file, if it cannot be written.
        """
        if is_shown(index, len(images)):
            mask = predicted.to("cpu", torch.uint8).numpy()
            write_prediction(prediction_file(self.folder, images.image_id(index)), mask, self.key)

    def save_classifier(self, state: Mapping[str, Tensor], meta: Meta) -> None:
        """Keep the fine-tuned child checkpoint, which classifier evaluators use."""
        if self.main:
            save_checkpoint(self.folder / CLASSIFIER, state, meta)
