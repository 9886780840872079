"""End-to-end fine-tuning of ViTs, BEiT-like ViTs and ResNets; saves the classifier whose parent is the backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from timm.data.mixup import Mixup, mixup_target
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from cim_bench.common.ranges import AreaRange, CropPct, Pixels, Rate, Share
from cim_bench.common.seeds import seed_all
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.data.transforms import EvalTransform, FinetuneTransform, check_auto_augment
from cim_bench.engine.fit import clear_resume, fit
from cim_bench.engine.inference import run_models
from cim_bench.engine.optimizers import check_optimizer
from cim_bench.engine.samples import Augmented
from cim_bench.engine.schedule import weight_decay_groups
from cim_bench.evals.classes import chance
from cim_bench.evals.learning import SMALLEST, class_frequencies, learned, log, not_learned
from cim_bench.evals.metrics import accuracy
from cim_bench.models.backbone import SIZED, Backbone, triple
from cim_bench.records.measurement import Measurement
from cim_bench.spec import Training, settings

try:
    from timm.optim import param_groups_layer_decay
except ImportError:  # before timm 1.0.10
    from timm.optim.optim_factory import param_groups_layer_decay
from cim_bench.evals.classifier import make_classifier


def cim_finetune_training(epochs: int = 100) -> Training:
    """CIM's public script: base lr 1.2e-3 per 256, batch 2048, layer decay 0.8, 5 epochs of warm-up."""
    return Training(
        epochs=epochs,
        warmup_epochs=5,
        effective_batch=2048,
        base_lr=1.2e-3,
        min_lr=1e-6,
        weight_decay=0.05,
        layer_decay=0.8,
    )


@dataclass(frozen=True, kw_only=True)
class Finetune(Evaluator):
    """End-to-end fine-tuning; CIM's ViT-B recipe by default, others in `cim_bench.recipes.finetuning`.

    The head of a ViT is global average pooling of patch tokens, a fresh LayerNorm, and a linear layer; that of a
    ResNet is pooling and a linear layer.

    Attributes:
        training: Schedule; ViT-B takes 100 epochs, ViT-S 200.
        train_size: Pixels a side of training crops; ``None`` for the architecture's own size. Another size is for
            networks without positions alone: RSB A3 trains ResNets at 160 and tests them at 224.
        train_positions: False keeps position embeddings fixed, as CIM's public model does; MAE's trains them. Relative
            position biases always train.
        drop_path: Stochastic depth rate of the last block.
        auto_augment: timm's RandAugment string; empty for none.
        reprob: Probability of random erasing.
        crop_scale: Area range of the training crop.
        mixup: Its alpha.
        cutmix: Its alpha.
        smoothing: Label smoothing.
        loss: Cross entropy; or binary cross entropy, mean over classes (RSB).
        bce_threshold: With ``bce``, targets above it count as 1 and others as 0, so that both images of a mixture
            count in full; ``None`` leaves mixed targets as they are.
        head_std: Standard deviation of the head's initial weights; ``None`` for timm's own initialisation.
        crop_pct: Of the evaluation transform: CIM's is 0.95, MAE's 0.875.
    """

    version: ClassVar[int] = 2
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"

    training: Training = field(default_factory=cim_finetune_training)
    train_size: Pixels | None = None
    train_positions: bool = False
    drop_path: Rate = 0.1
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    reprob: Share = 0.25
    crop_scale: AreaRange = (0.08, 1.0)
    mixup: Annotated[float, Ge(0)] = 0.8
    cutmix: Annotated[float, Ge(0)] = 1.0
    smoothing: Rate = 0.1
    loss: Literal["ce", "bce"] = "ce"
    bce_threshold: Rate | None = None
    head_std: Annotated[float, Interval(gt=0, le=2)] | None = 2e-5
    crop_pct: CropPct = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimizer(self.training, "Finetune.training")
        check_auto_augment("Finetune.auto_augment", self.auto_augment)
        if self.bce_threshold is not None and self.loss != "bce":
            raise ValueError(f"bce_threshold {self.bce_threshold} has no effect on loss {self.loss}; set loss to bce")

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """Top-1 of the last epoch."""
        train, val = ctx.train_images(), ctx.val_images()
        transform = self.transform(model)
        seed_all(ctx.seed, "head")
        classifier = make_classifier(model, len(train.classes), drop_path=self.drop_path, head_std=self.head_std)
        if not self.train_positions and getattr(classifier.net, "pos_embed", None) is not None:
            classifier.net.pos_embed.requires_grad_(False)
        last_epoch = fit(
            FinetuneModel(classifier, self, class_frequencies(train)),
            Augmented(train, transform, ctx.seed),
            self.groups(classifier),
            training=self.training,
            machine=ctx.machine,
            seed=ctx.seed,
            folder=ctx.folder,
            key=ctx.key,
            title="fine-tune",
        )
        batch, classes = self.training.effective_batch, train.classes
        ctx.warnings.extend(not_learned(last_epoch, images=len(train), batch=batch, classes=len(classes)))
        classifier.eval()
        crop = EvalTransform(model.arch.image_size, self.crop_pct)
        outputs, labels = run_models({"c": classifier}, val, crop, machine=ctx.machine)
        predictions = outputs["c"].argmax(dim=1)
        meta = replace(
            ctx.subject,
            kind="classifier",
            arch=classifier.arch,
            parent=ctx.subject.hash,
            classes=train.classes,
            global_pool="avg",
            recipe=settings(self),
            key=ctx.key,
            hash="",
        )
        ctx.save_classifier(classifier.net.state_dict(), meta)
        ctx.save_outcomes(val, labels, predictions)
        clear_resume(ctx.folder)
        value, n = accuracy(predictions, labels)
        yield Measurement(benchmark=val.name, split=val.split, metric="top1", value=value, n=n, chance=chance(classes))

    def transform(self, model: Backbone) -> FinetuneTransform:
        """What training does to an image.

        Raises:
            ValueError: If crops have a size that the network does not take.
        """
        arch, size = model.arch, self.train_size or model.arch.image_size
        if size != arch.image_size and arch.name.startswith(SIZED):
            raise ValueError(
                f"train_size {size} does not fit {arch.name}, whose positions are those of {arch.image_size} pixels; "
                "leave train_size out"
            )
        return FinetuneTransform(
            size,
            auto_augment=self.auto_augment,
            reprob=self.reprob,
            scale=self.crop_scale,
            mean=triple(model.mean),
            std=triple(model.std),
        )

    def groups(self, classifier: Backbone) -> list[dict[str, Any]]:
        """Layer-wise lr decay (embedding decay^(depth+1), head 1); 1-D, position and class token do not decay.

        Tables of relative position biases do decay, as in SimMIM's and BEiT's public code (optimizer.py,
        optim_factory.py), which spare ``pos_embed`` and ``cls_token`` alone. A layer of a ResNet is one block.
        """
        decay = self.training.weight_decay
        if self.training.layer_decay is None:
            return weight_decay_groups(classifier.net, decay)
        return list(
            param_groups_layer_decay(
                classifier.net,
                weight_decay=decay,
                no_weight_decay_list={"pos_embed", "cls_token"},
                layer_decay=self.training.layer_decay,
            )
        )


class FinetuneModel(nn.Module):
    """A classifier with its loss, on images mixed by mixup or cutmix.

    timm's Mixup pairs images: of an odd number the last stays whole.

    Args:
        classifier: What is trained.
        recipe: Its loss and mixing.
        frequencies: (classes,) of the labels.
    """

    frequencies: Tensor

    def __init__(self, classifier: Backbone, recipe: Finetune, frequencies: Tensor) -> None:
        super().__init__()
        self.classifier, self.recipe, self.mixup = classifier, recipe, None
        self.register_buffer("frequencies", frequencies, persistent=False)
        if recipe.mixup or recipe.cutmix:
            self.mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.smoothing,
                num_classes=classifier.num_classes,
            )
        self.criterion: nn.Module
        if recipe.loss == "bce":
            self.criterion = BinaryCrossEntropy(recipe.smoothing, target_threshold=recipe.bce_threshold)
        else:
            self.criterion = SoftTargetCrossEntropy() if self.mixup else LabelSmoothingCrossEntropy(recipe.smoothing)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean loss of images (B, 3, H, W) in [0, 1] and labels (B,), and what `learned` says of it."""
        images, targets = batch["image"], batch["label"]
        if self.mixup is not None:
            images, targets = mix(self.mixup, images, targets)
        logits = self.classifier(images)
        return {"loss": self.criterion(logits, targets), **self._learned(logits, targets)}

    def _learned(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Of logits (B, classes) and targets as the criterion takes them, soft (B, classes) or labels (B,)."""
        recipe, classes = self.recipe, self.classifier.num_classes
        soft = targets if targets.ndim == 2 else mixup_target(targets, classes, smoothing=recipe.smoothing)
        perfect, constant = soft, (1 - recipe.smoothing) * self.frequencies + recipe.smoothing / classes
        if recipe.bce_threshold is not None:  # both classes of a mixture count in full
            perfect = soft.gt(recipe.bce_threshold).float()
            constant = self.frequencies * perfect.sum(dim=1).mean()
        scores = partial(torch.logit, eps=SMALLEST) if recipe.loss == "bce" else log
        return learned(
            logits, soft.argmax(dim=1), constant, perfect, lambda answers: self.criterion(scores(answers), targets)
        )


def mix(mixup: Mixup, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W), mixed in pairs, and their soft targets (B, classes)."""
    even = len(images) // 2 * 2
    if even == len(images):
        mixed: tuple[Tensor, Tensor] = mixup(images.clone(), labels)
        return mixed
    targets = mixup_target(labels, mixup.num_classes, lam=1.0, smoothing=mixup.label_smoothing)
    if even:
        pairs, soft = mixup(images[:even].clone(), labels[:even])
        images, targets = torch.cat([pairs, images[even:]]), torch.cat([soft, targets[even:]])
    return images, targets
