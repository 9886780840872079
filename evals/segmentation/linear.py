"""Linear segmentation of frozen patch tokens (DINOv2's protocol): SyncBN and a 1×1 convolution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cim_bench.common.ranges import Ascending, Distinct, NotNegative
from cim_bench.common.seeds import seed_all
from cim_bench.contracts.context import Context
from cim_bench.contracts.features import FeatureEvaluator
from cim_bench.data.segmentation import IGNORED, SegmentationSet
from cim_bench.engine.devices import make_accelerator
from cim_bench.engine.features import Extractor, SetFeatures
from cim_bench.engine.fit import clear_resume, fit
from cim_bench.engine.optimizers import check_optimizer
from cim_bench.engine.samples import TrainSet
from cim_bench.evals.segmentation.measure import measurements
from cim_bench.evals.segmentation.samples import SegmentationSamples
from cim_bench.evals.segmentation.scoring import Scored, score
from cim_bench.evals.segmentation.sets import ADE20K, CentreWindow, PreparedMasks, SizeRatio, open_splits
from cim_bench.evals.segmentation.transforms import SegmentationTrain
from cim_bench.evals.segmentation.upernet import pixel_loss
from cim_bench.models.backbone import Backbone, triple
from cim_bench.models.sizing import at_size, patch_size
from cim_bench.records.confusions import class_sums, miou
from cim_bench.records.measurement import Measurement
from cim_bench.spec import Data, IterationTraining, SlidingTest, chosen_data


def dinov2_training() -> IterationTraining:
    """DINOv2's values: AdamW 1e-3, decay 1e-4, 40,000 steps of 16 images, warm-up 1,500, then a line to 0."""
    return IterationTraining(
        iterations=40_000, effective_batch=16, lr=1e-3, weight_decay=1e-4, warmup_iterations=1500, validations=1
    )


def dinov2_test() -> SlidingTest:
    """Windows of 512, 341 pixels apart, of images whose short side is 512; the long one as good as unbounded."""
    return SlidingTest(scale=(8192, 512))


@dataclass(frozen=True, kw_only=True)
class SegmentationLinear(FeatureEvaluator):
    """Linear segmentation of frozen tokens, DINOv2's protocol: only BatchNorm and a 1×1 convolution are trained.

    Attributes:
        data: The set, in ADE20K's layout; `cim_bench.spec.OF_BENCHMARK` for the benchmark's.
        training: Schedule of the head, per iteration.
        test: Windows; its crop is that of training, too.
        blocks: Whose tokens are concatenated, counted from 0; none for the last. Of a ResNet: stages.
        norm: Whether tokens pass the network's final norm.
        augment: ``crop`` trains on mmseg's random crops; ``none`` on the middle window of each image, whose tokens are
            made once and kept.
        ratios: Range of random sizes in training, times `SlidingTest.scale`.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"
    opens: ClassVar[type[SegmentationSet]] = SegmentationSet

    data: Data = ADE20K
    training: IterationTraining = field(default_factory=dinov2_training)
    test: SlidingTest = field(default_factory=dinov2_test)
    blocks: Annotated[tuple[NotNegative, ...], Ascending(), Distinct()] = ()
    norm: bool = True
    augment: Literal["crop", "none"] = "crop"
    ratios: Annotated[tuple[SizeRatio, SizeRatio], Ascending()] = (0.5, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimizer(self.training, "SegmentationLinear.training")
        if self.training.layer_decay is not None:
            raise ValueError(
                f"SegmentationLinear.training.layer_decay is {self.training.layer_decay}, and has no effect on a head "
                "alone; set it to None"
            )
        if self.test.whole:
            raise ValueError(
                "SegmentationLinear.test.whole is True, and frozen positions are of one window's size; set it to False"
            )

    @property
    def shares(self) -> bool:
        """Random crops are made for each model's own training."""
        return self.augment == "none"

    def reads(self, data: Data) -> tuple[tuple[Data, str], ...]:
        """Both splits of its set."""
        own = chosen_data(self.data, data)
        return ((own, own.train_split), (own, own.val_split))

    def sets(self, ctx: Context) -> Mapping[str, PreparedMasks]:
        """The middle windows of the training split, if these are all that is looked at."""
        if self.augment == "crop":
            return {}
        train, _ = open_splits(chosen_data(self.data, ctx.data))
        return {"train": PreparedMasks(train, self._window((0.0, 0.0, 0.0)))}  # masks are padded with 255

    def transform(self, model: Backbone) -> CentreWindow:
        """The middle window, padded with the model's mean colour."""
        return self._window(triple(model.mean))

    def extractor(self, model: Backbone) -> Extractor:
        """Tokens (B, width, h, w) in float16."""
        network = self.network(model, 1)
        return lambda pixels: network.tokens(pixels.float() / 255).half()

    def network(self, model: Backbone, classes: int) -> LinearSegmenter:
        """The frozen backbone at the crop's size under a fresh head.

        Raises:
            ValueError: If it has no patch tokens, or not that many blocks.
        """
        crop, patch = self.test.crop, patch_size(model)
        sized = at_size(model, math.ceil(crop / patch) * patch)
        return LinearSegmenter(sized, blocks=self.blocks, norm=self.norm, classes=classes).to(model.mean.device)

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """mIoU and the other measures of the last iteration, for each stride."""
        train, val = open_splits(chosen_data(self.data, ctx.data))
        device = make_accelerator(ctx.machine).device
        seed_all(ctx.seed, "head")
        network = self.network(model, len(train.classes)).to(device)
        machine, samples = ctx.machine, self._samples(train, model, ctx)
        if self.augment == "none":
            machine = replace(machine, workers=0)  # tokens lie on disk already
        scored: list[Scored] = []

        def validate() -> dict[str, float]:
            scored[:] = [
                score(
                    network.eval(),
                    val,
                    self.test,
                    mean=network.backbone.mean,
                    patch=patch_size(network.backbone),
                    machine=ctx.machine,
                    keep=lambda index, predicted: ctx.save_prediction(val, index, predicted),
                )
            ]
            network.train()
            return {"miou": float(miou(class_sums(scored[0][0][1], len(val.classes)).sum(axis=0)))}

        fit(
            SegmentationProbe(network),
            samples,
            [{"params": list(network.head.parameters()), "weight_decay": self.training.weight_decay}],
            training=self.training,
            machine=machine,
            seed=ctx.seed,
            folder=ctx.folder,
            key=ctx.key,
            title="linear segmentation",
            validate=validate,
        )
        yield from measurements(ctx, val, scored[0])
        clear_resume(ctx.folder)

    def _window(self, mean: tuple[float, float, float]) -> CentreWindow:
        return CentreWindow(crop=self.test.crop, bound=self.test.scale, mean=mean, antialias=self.test.antialias)

    def _samples(self, train: SegmentationSet, model: Backbone, ctx: Context) -> TrainSet:
        if self.augment == "none":
            return KeptTokens(train, self.features(model, ctx)["train"])
        transform = SegmentationTrain(
            crop=self.test.crop,
            bound=self.test.scale,
            ratios=self.ratios,
            mean=triple(model.mean),
            antialias=self.test.antialias,
        )
        return SegmentationSamples(train, transform, ctx.seed)


class LinearSegmenter(nn.Module):
    """A frozen backbone under BatchNorm and a 1×1 convolution from N(0, 0.01).

    Source: facebookresearch/dinov2, eval/segmentation/models: ``BNHead`` (decode_heads/linear_head.py) on mmseg's
    ``BaseDecodeHead``, ``resize_concat`` of several maps.

    Args:
        backbone: Of the size of a window, rounded up to whole patches.
        blocks: Whose tokens are concatenated; none for the last.
        norm: Whether tokens pass the final norm.
        classes: How many.
    """

    def __init__(self, backbone: Backbone, *, blocks: tuple[int, ...], norm: bool, classes: int) -> None:
        super().__init__()
        self.backbone, self.blocks, self.norm = backbone.requires_grad_(False).eval(), blocks, norm
        with torch.no_grad():
            side = backbone.arch.image_size
            width = self.tokens(torch.zeros(1, 3, side, side, device=backbone.mean.device)).shape[1]
        classify = nn.Conv2d(width, classes, 1)
        nn.init.normal_(classify.weight, std=0.01)
        nn.init.zeros_(classify.bias)  # type: ignore[arg-type]  # a convolution has one by default
        self.head = nn.Sequential(nn.BatchNorm2d(width), classify)

    def train(self, mode: bool = True) -> Self:
        """Only the head has a mode: statistics of a frozen ResNet stay."""
        super().train(mode)
        self.backbone.eval()
        return self

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens (N, width, h, w) of images (N, 3, H, W) in [0, 1], which are padded on all sides to whole patches.

        Source: facebookresearch/dinov2, ``CenterPadding`` of its notebook semantic_segmentation.ipynb.
        """
        patch = patch_size(self.backbone)
        pads = [extra for side in (images.shape[3], images.shape[2]) for extra in _around(-side % patch)]
        centred = F.pad(images - self.backbone.mean, pads)  # what is 0 here is 0 after normalisation
        maps = self.backbone.token_maps(centred + self.backbone.mean, self.blocks or None, norm=self.norm)
        size = maps[0].shape[2:]
        return torch.cat([F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in maps], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes, h, w)."""
        logits: Tensor = self.head(self.tokens(images))
        return logits


class SegmentationProbe(nn.Module):
    """A `LinearSegmenter` with its loss, whose head sees the whole effective batch: SyncBN on any machine.

    Args:
        network: What is trained.
    """

    def __init__(self, network: LinearSegmenter) -> None:
        super().__init__()
        self.network = network

    def frozen_features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tokens and masks of one pass, of images unless tokens were made before."""
        tokens = batch["tokens"] if "tokens" in batch else self.network.tokens(batch["image"].float() / 255)
        return {"tokens": tokens.float(), "mask": batch["mask"]}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of tokens (B, D, h, w) and masks (B, c, c): the mean over all pixels, unlabelled ones count as 0.

        Logits at the masks' size are made image by image, and again for the gradient: all at once would be gigabytes.
        """
        logits, masks = self.network.head(batch["tokens"]).float(), batch["mask"].long()
        losses = [checkpoint(_loss, *pair, use_reentrant=False) for pair in zip(logits, masks, strict=True)]
        with torch.no_grad():
            small = F.interpolate(batch["mask"][:, None].float(), size=logits.shape[2:], mode="nearest-exact")[:, 0]
            labelled = small != IGNORED
            right = ((logits.argmax(dim=1) == small) & labelled).sum() / labelled.sum().clamp_min(1)
        return {"loss": torch.stack(losses).mean(), "patch_accuracy": right}


class KeptTokens(torch.utils.data.Dataset[dict[str, Any]]):
    """Kept tokens and masks as training samples.

    Args:
        images: What they are of.
        found: Of these images.
    """

    def __init__(self, images: SegmentationSet, found: SetFeatures) -> None:
        self.images, self.found = images, found

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        index = where[1]
        tokens, mask = (torch.from_numpy(np.array(rows[index])) for rows in self.found)
        return {"tokens": tokens, "mask": mask, "index": index}

    def image_id(self, index: int) -> str:
        """The image's name."""
        return self.images.image_id(index)


def _loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Of one image: (classes, h, w) and (H, W)."""
    whole = F.interpolate(logits[None], size=mask.shape, mode="bilinear", align_corners=False)
    return pixel_loss(whole, mask[None], "all")


def _around(extra: int) -> tuple[int, int]:
    return extra // 2, extra - extra // 2
