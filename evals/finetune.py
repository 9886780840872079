"""End-to-end fine-tuning (CIM's and MAE's recipes); saves the classifier whose parent is the backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from timm.data.mixup import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from cim_bench.backbone import Backbone, load_exact
from cim_bench.context import Context
from cim_bench.data.transforms import EvalTransform, FinetuneTransform, seed_all
from cim_bench.evals.metrics import accuracy
from cim_bench.inference import run_models
from cim_bench.recipe import Evaluator, Training, settings
from cim_bench.record import Measurement
from cim_bench.training import Augmented, clear_resume, fit

try:
    from timm.optim import param_groups_layer_decay
except ImportError:  # before timm 1.0.10
    from timm.optim.optim_factory import param_groups_layer_decay


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
    """End-to-end fine-tuning of a ViT; CIM's ViT-B recipe by default.

    The head is global average pooling of patch tokens, a fresh LayerNorm, and a linear layer.

    Attributes:
        training: Schedule; ViT-B takes 100 epochs, ViT-S 200.
        train_positions: False keeps position embeddings fixed, as CIM's public model does; MAE's trains them.
        drop_path: Stochastic depth rate of the last block.
        auto_augment: timm's RandAugment string; empty for none.
        reprob: Probability of random erasing.
        crop_scale: Area range of the training crop.
        mixup: Its alpha.
        cutmix: Its alpha.
        smoothing: Label smoothing.
        head_std: Standard deviation of the head's initial weights.
        crop_pct: Of the evaluation transform: CIM's is 0.95, MAE's 0.875.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"

    training: Training = field(default_factory=cim_finetune_training)
    train_positions: bool = False
    drop_path: float = 0.1
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    reprob: float = 0.25
    crop_scale: tuple[float, float] = (0.08, 1.0)
    mixup: float = 0.8
    cutmix: float = 1.0
    smoothing: float = 0.1
    head_std: float = 2e-5
    crop_pct: float = 0.95

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """Top-1 of the last epoch."""
        train, val = ctx.train_images(), ctx.val_images()
        seed_all(ctx.seed, "head")
        classifier = make_classifier(model, len(train.classes), drop_path=self.drop_path, head_std=self.head_std)
        if not self.train_positions:
            classifier.net.pos_embed.requires_grad_(False)
        size = model.arch.image_size
        transform = FinetuneTransform(size, auto_augment=self.auto_augment, reprob=self.reprob, scale=self.crop_scale)
        fit(
            FinetuneModel(classifier, self),
            Augmented(train, transform, ctx.seed),
            self.groups(classifier),
            training=self.training,
            machine=ctx.machine,
            seed=ctx.seed,
            folder=ctx.folder,
            title="fine-tune",
        )
        classifier.eval()
        outputs, labels = run_models({"c": classifier}, val, EvalTransform(size, self.crop_pct), machine=ctx.machine)
        predictions = outputs["c"].argmax(dim=1)
        meta = replace(
            ctx.subject,
            kind="classifier",
            parent=ctx.subject.hash,
            classes=train.classes,
            global_pool="avg",
            recipe=settings(self),
            hash="",
        )
        ctx.save_classifier(classifier.net.state_dict(), meta)
        ctx.save_outcomes(val, labels, {"prediction": predictions})
        clear_resume(ctx.folder)
        value, n = accuracy(predictions, labels)
        yield Measurement(benchmark=val.name, split=val.split, metric="top1", value=value, n=n)

    def groups(self, classifier: Backbone) -> list[dict[str, Any]]:
        """Layer-wise lr decay (embedding decay^(depth+1), head 1); 1-D, position and class token do not decay."""
        return list(
            param_groups_layer_decay(
                classifier.net,
                weight_decay=self.training.weight_decay,
                no_weight_decay_list={"pos_embed", "cls_token"},
                layer_decay=self.training.layer_decay or 1.0,
            )
        )


def make_classifier(model: Backbone, num_classes: int, *, drop_path: float, head_std: float) -> Backbone:
    """The backbone's weights under a fresh ``fc_norm`` and ``head``; the final ``norm`` is dropped.

    Raises:
        ValueError: If the backbone's keys are not exactly those of its architecture.
    """
    classifier = Backbone(
        model.arch,
        mean=_triple(model.mean),
        std=_triple(model.std),
        num_classes=num_classes,
        model_args={"global_pool": "avg", "drop_path_rate": drop_path},
    )
    fresh = {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    load_exact(
        classifier.net,
        model.net.state_dict(),
        what="the backbone",
        missing=fresh,
        unexpected={"norm.weight", "norm.bias"},
    )
    head: nn.Linear = classifier.net.head
    nn.init.trunc_normal_(head.weight, std=head_std)
    nn.init.zeros_(head.bias)
    return classifier


class FinetuneModel(nn.Module):
    """A classifier with its loss, on images mixed by mixup or cutmix."""

    def __init__(self, classifier: Backbone, recipe: Finetune) -> None:
        super().__init__()
        self.classifier, self.mixup = classifier, None
        self.criterion: nn.Module = LabelSmoothingCrossEntropy(recipe.smoothing)
        if recipe.mixup or recipe.cutmix:
            self.mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.smoothing,
                num_classes=classifier.num_classes,
            )
            self.criterion = SoftTargetCrossEntropy()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean loss of images (B, 3, H, W) in [0, 1] and labels (B,)."""
        images, targets = batch["image"], batch["label"]
        if self.mixup is not None:
            even = len(images) // 2 * 2  # timm's Mixup pairs images; an odd one out stays whole
            images, targets = self.mixup(images[:even].clone(), targets[:even]) if even else (images, targets)
        return {"loss": self.criterion(self.classifier(images), targets)}


def _triple(values: Tensor) -> tuple[float, float, float]:
    r, g, b = torch.flatten(values).tolist()
    return r, g, b
