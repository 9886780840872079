"""Fine-tuning with UPerNet (mmseg's and its forks' ADE20K protocol), on the project's own training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Interval
from torch import Tensor, nn

from cim_bench.common.ranges import Ascending, Distinct, NotNegative, Positive, Rate
from cim_bench.common.seeds import seed_all
from cim_bench.common.streams import say
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.data.segmentation import IGNORED, SegmentationSet
from cim_bench.data.sets import RELEASES
from cim_bench.engine.devices import make_accelerator
from cim_bench.engine.fit import clear_resume, fit
from cim_bench.engine.log import read_log
from cim_bench.engine.optimizers import check_optimizer
from cim_bench.evals.classifier import body
from cim_bench.evals.segmentation import detectron2_engine
from cim_bench.evals.segmentation.measure import measurements
from cim_bench.evals.segmentation.network import AUXILIARY_MAP, UPerNet, add_relative_bias
from cim_bench.evals.segmentation.samples import SegmentationSamples
from cim_bench.evals.segmentation.scoring import Scored, score
from cim_bench.evals.segmentation.sets import ADE20K, SizeRatio, open_splits
from cim_bench.evals.segmentation.transforms import SegmentationTrain
from cim_bench.models.backbone import Backbone, triple
from cim_bench.models.sizing import at_size, patch_size
from cim_bench.records.confusions import class_sums, miou
from cim_bench.records.measurement import Measurement
from cim_bench.spec import Data, IterationTraining, Machine, SlidingTest, chosen_data

FourBlocks = tuple[NotNegative, NotNegative, NotNegative, NotNegative]
# A first validation below this share of the published curve's first point is far below it: BEiT's and MAE's own runs,
# and repeats by others, lie within a few points of each other there.
FAR_BELOW = 0.8
ADE20K_VALIDATION = RELEASES["ADE20K", "val"].images[0]


class Engine(NamedTuple):
    """What trains and scores.

    Attributes:
        check: Refuses a schedule and machine that it cannot do.
        fit: As `cim_bench.engine.fit.fit`.
        score: As `cim_bench.evals.segmentation.scoring.score`.
        clear: Removes what a training kept to go on from, in the job's folder.
    """

    check: Callable[[IterationTraining, Machine], None]
    fit: Callable[..., dict[str, float]]
    score: Callable[..., Scored]
    clear: Callable[[Path], None]


ENGINES = {
    "own": Engine(lambda _training, _machine: None, fit, score, clear_resume),
    "detectron2": Engine(
        detectron2_engine.check, detectron2_engine.fit, detectron2_engine.score, detectron2_engine.clear
    ),
}


def mae_training() -> IterationTraining:
    """implus/mae_segmentation's values: 160,000 steps of 16 images, rate 1e-4, layer decay 0.65, warm-up 1,500."""
    return IterationTraining(
        iterations=160_000,
        effective_batch=16,
        lr=1e-4,
        weight_decay=0.05,
        layer_decay=0.65,
        warmup_iterations=1500,
    )


@dataclass(frozen=True, kw_only=True)
class SegmentationUPerNet(Evaluator):
    """Fine-tuning of a backbone with UPerNet's heads; CIM's recipe by default, others in `cim_bench.recipes`.

    Every switch is a trait of a published code; the pages of the recipes say which code has which.

    Attributes:
        data: The set, in ADE20K's layout; `cim_bench.spec.OF_BENCHMARK` for the benchmark's.
        training: Schedule, per iteration.
        test: Windows; its crop is that of training, too.
        ratios: Range of random sizes in training, times `SlidingTest.scale`.
        blocks: Of a ViT, those whose raw tokens are the pyramid's maps; a ResNet gives its four stages.
        channels: Of the head.
        drop_path: Stochastic depth rate of the last block.
        relative_bias: Give a ViT with absolute positions relative ones of its own, too, which begin at 0.
        layer_scale: Give a ViT without layer scale one that begins at this value; ``None`` for none.
        decay_positions: Whether weight decay applies to positions, relative ones too, and the class token: public code
            means to exempt them, and its names never match (``backbone.`` begins them).
        loss_pixels: Mean of the loss over ``all`` pixels, where ignored ones count as 0 (mmseg), or over ``labelled``.
        auxiliary_weight: Of the auxiliary head's loss.
        engine: ``own``, or ``detectron2``, whose machinery then trains and scores the same network with the same draws,
            in one process (`cim_bench.evals.segmentation.detectron2_engine`).
        published_curve: mIoU in percent of a published training on ADE20K at each of the training's validations; a run
            that is far below its first point says so at once. A curve of another length is not compared with.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"
    opens: ClassVar[type[SegmentationSet]] = SegmentationSet

    data: Data = ADE20K
    training: IterationTraining = field(default_factory=mae_training)
    test: SlidingTest = field(default_factory=SlidingTest)
    ratios: Annotated[tuple[SizeRatio, SizeRatio], Ascending()] = (0.5, 2.0)
    blocks: Annotated[FourBlocks, Ascending(), Distinct()] = (3, 5, 7, 11)
    channels: Positive = 768
    drop_path: Rate = 0.1
    relative_bias: bool = False
    layer_scale: Annotated[float, Interval(gt=0, le=10)] | None = None
    decay_positions: bool = True
    loss_pixels: Literal["all", "labelled"] = "all"
    auxiliary_weight: Annotated[float, Ge(0)] = 0.4
    engine: Literal["own", "detectron2"] = "own"
    published_curve: tuple[Annotated[float, Interval(ge=0, le=100)], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimizer(self.training, "SegmentationUPerNet.training")
        if self.relative_bias and self.test.whole:
            raise ValueError(
                "SegmentationUPerNet.test.whole is True, and relative positions are of one window's size; set "
                "relative_bias or test.whole to False"
            )

    def reads(self, data: Data) -> tuple[tuple[Data, str], ...]:
        """Both splits of its set."""
        own = chosen_data(self.data, data)
        return ((own, own.train_split), (own, own.val_split))

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """mIoU and the other measures of the last iteration, for each way of testing."""
        train, val = open_splits(chosen_data(self.data, ctx.data))
        engine = ENGINES[self.engine]
        engine.check(self.training, ctx.machine)
        accelerator = make_accelerator(ctx.machine)
        device = accelerator.device
        check_pass(self.training.effective_batch // accelerator.num_processes, ctx.machine.micro_batch)
        seed_all(ctx.seed, "head")
        network = self.network(model, len(train.classes)).to(device)
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        last_scored: list[Scored] = []

        def score_now() -> Scored:
            return engine.score(
                network.eval(),
                val,
                self.test,
                mean=network.backbone.mean,
                patch=patch_size(network.backbone),
                machine=ctx.machine,
                keep=lambda index, predicted: ctx.save_prediction(val, index, predicted),
            )

        def validate() -> dict[str, float]:
            last_scored[:] = [score_now()]
            network.train()
            reached = float(miou(class_sums(last_scored[0][0][1], len(val.classes)).sum(axis=0)))
            for sentence in self._behind([] if read_log(ctx.folder, "miou") else [reached], val):
                say(sentence)
            return {"miou": reached}

        last_epoch = engine.fit(
            SegmentationModel(network, self),
            SegmentationSamples(train, self.transform(model), ctx.seed),
            self.groups(network),
            training=self.training,
            machine=ctx.machine,
            seed=ctx.seed,
            folder=ctx.folder,
            key=ctx.key,
            title="segmentation",
            validate=validate,
        )
        ctx.warnings.extend(self._warnings(network, round(last_epoch["images_a_pass"]), ctx, val))
        alone = make_accelerator(ctx.machine).num_processes == 1  # of several, each had BatchNorm statistics of its own
        yield from measurements(ctx, val, last_scored[0] if alone and last_scored else score_now())
        engine.clear(ctx.folder)

    def network(self, model: Backbone, classes: int) -> UPerNet:
        """The backbone at the crop's size under fresh heads.

        Raises:
            ValueError: If the backbone has no patch tokens, too few blocks, or takes none of what is to be added.
        """
        model_args: dict[str, Any] = {"drop_path_rate": self.drop_path}
        if self.layer_scale is not None:
            model_args["init_values"] = self.layer_scale
        if self.test.whole:
            model_args["dynamic_img_size"] = True
        backbone = body(at_size(model, self.test.crop), model_args, added=("gamma",) if self.layer_scale else ())
        if self.relative_bias:
            add_relative_bias(backbone)
        return UPerNet(backbone, blocks=self.blocks, channels=self.channels, classes=classes)

    def transform(self, model: Backbone) -> SegmentationTrain:
        """mmseg's training transform."""
        return SegmentationTrain(
            crop=self.test.crop,
            bound=self.test.scale,
            ratios=self.ratios,
            mean=triple(model.mean),
            antialias=self.test.antialias,
        )

    def groups(self, network: UPerNet) -> list[dict[str, Any]]:
        """Optimiser groups by layer, with and without weight decay.

        Source: microsoft/unilm, beit/semantic_segmentation/mmcv_custom/layer_decay_optimizer_constructor.py.
        """
        decay, depth = self.training.layer_decay or 1.0, network.backbone.depth
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in network.named_parameters():
            layer = layer_of(name, depth)
            positions = name.endswith(("pos_embed", "cls_token", "relative_position_bias_table"))
            free = parameter.ndim == 1 or name.endswith(".bias") or (positions and not self.decay_positions)
            group = {
                "params": [],
                "lr_scale": decay ** (depth + 1 - layer),
                "weight_decay": 0.0 if free else self.training.weight_decay,
            }
            groups.setdefault((layer, free), group)["params"].append(parameter)
        return list(groups.values())

    def _warnings(self, network: UPerNet, images: int, ctx: Context, val: SegmentationSet) -> list[str]:
        """What a reader of the number must know; `images` went through the network in one pass of a process."""
        found = self._behind([value for _, value in read_log(ctx.folder, "miou")], val)
        engine, wanted = make_accelerator(ctx.machine), self.training.effective_batch
        images *= engine.num_processes if engine.device.type == "cuda" else 1
        if images < wanted:
            found.append(f"BatchNorm statistics over {images} images, where the recipe has {wanted}")
        if (patch := patch_size(network.backbone)) not in (1, 16):
            found.append(f"patches of {patch} pixels: crops of {self.test.crop} pixels")
        return found

    def _behind(self, reached: Sequence[float], val: SegmentationSet) -> list[str]:
        """A warning where the first validation is far below the published curve's first point."""
        same = len(self.published_curve) == self.training.validations
        if not (reached and same and val.name == ADE20K.name and len(val) == ADE20K_VALIDATION):
            return []
        own, published = 100 * reached[0], self.published_curve[0]
        if own >= FAR_BELOW * published:
            return []
        step = math.ceil(self.training.iterations / self.training.validations)
        return [f"after {step:,} iterations mIoU was {own:.2f} %, far below the published run's {published:.2f} %"]


def check_pass(share: int, micro_batch: int) -> None:
    """Refuse passes of one image: BatchNorm after pooling to one cell needs two values a channel.

    Args:
        share: Images of a step that one process takes.
        micro_batch: Most images in a pass.

    Raises:
        ValueError: Naming the setting.
    """
    if min(share, micro_batch) < 2:
        name = "training.effective_batch" if share < 2 else "machine.micro_batch"
        raise ValueError(f"{name} leaves one image a pass, and UPerNet's BatchNorm needs at least two; raise it")


def layer_of(name: str, depth: int) -> int:
    """Layer of a parameter: 0 for embeddings and a ResNet's stem, then blocks or stages from 1, then all heads."""
    parts = name.removeprefix("backbone.net.").split(".")
    if not name.startswith("backbone.net."):
        return depth + 1
    if parts[0] == "blocks":
        return int(parts[1]) + 1
    if parts[0].startswith("layer"):
        return int(parts[0].removeprefix("layer"))
    return 0


class SegmentationModel(nn.Module):
    """A UPerNet with its loss.

    Args:
        network: What is trained.
        recipe: Its loss.
    """

    def __init__(self, network: UPerNet, recipe: SegmentationUPerNet) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss of images (B, 3, c, c) uint8 and masks (B, c, c) uint8, and what is logged of it."""
        masks = batch["mask"].long()
        maps = self.network.maps(batch["image"].float() / 255)
        logits = _to_size(self.network.head(maps), masks)
        auxiliary = _to_size(self.network.auxiliary(maps[AUXILIARY_MAP]), masks)
        main, side = (pixel_loss(found, masks, self.recipe.loss_pixels) for found in (logits, auxiliary))
        labelled = masks != IGNORED
        right = ((logits.argmax(dim=1) == masks) & labelled).sum() / labelled.sum().clamp_min(1)
        passed = torch.tensor(float(len(masks)), device=masks.device)
        return {
            "loss": main + self.recipe.auxiliary_weight * side,
            "head_loss": main,
            "auxiliary_loss": side,
            "pixel_accuracy": right,
            "images_a_pass": passed,
        }


def pixel_loss(logits: Tensor, masks: Tensor, pixels: Literal["all", "labelled"]) -> Tensor:
    """Cross entropy of logits (B, classes, H, W) and masks (B, H, W), `IGNORED` where unlabelled.

    Source: open-mmlab/mmsegmentation, models/losses/cross_entropy_loss.py: ``avg_non_ignore`` is False by default, so
    that ignored pixels count as 0 in a mean over all.
    """
    total = F.cross_entropy(logits.float(), masks, ignore_index=IGNORED, reduction="sum")
    count = masks.numel() if pixels == "all" else int((masks != IGNORED).sum())
    return total / max(count, 1)


def _to_size(logits: Tensor, masks: Tensor) -> Tensor:
    return F.interpolate(logits, size=masks.shape[1:], mode="bilinear", align_corners=False)
