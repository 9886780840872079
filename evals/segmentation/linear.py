"""Linear segmentation of frozen patch tokens (DINOv2's protocol): SyncBN and a 1×1 convolution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from cim_bench.common.ranges import Ascending, Distinct, NotNegative
from cim_bench.common.seeds import seed_all
from cim_bench.contracts.context import Context
from cim_bench.contracts.features import FeatureEvaluator
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.engine.devices import make_accelerator
from cim_bench.engine.features import Extractor
from cim_bench.engine.fit import clear_resume, fit
from cim_bench.engine.optimizers import check_optimizer
from cim_bench.engine.samples import TrainSet
from cim_bench.evals.segmentation.measure import measurements
from cim_bench.evals.segmentation.probe import KeptTokens, LinearSegmenter, SegmentationProbe
from cim_bench.evals.segmentation.samples import SegmentationSamples
from cim_bench.evals.segmentation.scoring import Scored, score
from cim_bench.evals.segmentation.sets import ADE20K, CentreWindow, PreparedMasks, SizeRatio, open_splits
from cim_bench.evals.segmentation.transforms import SegmentationTrain
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
