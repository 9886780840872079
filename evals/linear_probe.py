"""Linear probing (MAE's protocol, facebookresearch/mae main_linprobe.py): a linear head on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_bench.common.ranges import CropPct, Distinct, Positive
from cim_bench.common.seeds import seed_all
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import EvalTransform, SingleRandomResizedCrop
from cim_bench.engine.fit import clear_resume, fit
from cim_bench.engine.inference import check_finite, run_models
from cim_bench.engine.optimizers import check_optimizer
from cim_bench.engine.samples import Augmented, TrainSet
from cim_bench.evals.classes import chance
from cim_bench.evals.features import block_facets, frozen_features
from cim_bench.evals.learning import class_frequencies, learned, log, not_learned
from cim_bench.evals.metrics import accuracy
from cim_bench.models.backbone import Backbone, Feature
from cim_bench.records.measurement import Measurement
from cim_bench.spec import Training


def mae_linear_training() -> Training:
    """MAE's ViT-B values: LARS, base lr 0.1 per 256, batch 16384, 90 epochs, 10 of warm-up, no decay."""
    return Training(
        epochs=90,
        warmup_epochs=10,
        effective_batch=16384,
        base_lr=0.1,
        optimizer="lars",
        momentum=0.9,
        weight_decay=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Evaluator):
    """Linear probing, MAE's protocol: LARS, BatchNorm without affine, frozen backbone.

    BatchNorm takes the statistics of the effective batch, however devices and passes share it; MAE's, those of the 512
    images of one GPU.

    Attributes:
        training: Schedule of the head.
        feature: Which vector the head sees; part of the protocol.
        blocks: Blocks of a transformer, counted from 1, whose output is probed too, without the final norm; one
            measurement for each, of a head of its own that is trained beside the others.
        augment: ``crop`` is MAE's random crop and flip; ``none`` extracts every feature once.
        crop_pct: Of the evaluation transform.
    """

    version: ClassVar[int] = 2
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"

    training: Training = field(default_factory=mae_linear_training)
    feature: Feature = "cls"
    blocks: Annotated[tuple[Positive, ...], Distinct()] = ()
    augment: Literal["crop", "none"] = "crop"
    crop_pct: CropPct = 0.875

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimizer(self.training, "LinearProbe.training")
        for name, off in (("layer_decay", None), ("weight_decay", 0.0)):
            if (value := getattr(self.training, name)) != off:
                raise ValueError(
                    f"LinearProbe.training.{name} is {value}, and has no effect on a head alone; set it to {off}"
                )

        if self.blocks and self.training.clip_grad is not None:
            raise ValueError(
                f"LinearProbe.training.clip_grad is {self.training.clip_grad}, which would tie the heads of several "
                "blocks together; set it to None, or leave blocks empty"
            )

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """Top-1 of the last epoch's heads."""
        train, val = ctx.train_images(), ctx.val_images()
        transform = EvalTransform(model.arch.image_size, self.crop_pct)
        features = frozen_features(model, self.feature, self.blocks)
        extract = {"f": features}
        queries, labels = run_models(extract, val, transform, machine=ctx.machine)
        seed_all(ctx.seed, "head")
        machine = ctx.machine
        _, count, dim = queries["f"].shape
        made = [make_head(dim, len(train.classes)) for _ in range(count)]
        heads = Heads(made)
        probe: FeatureProbe
        frequencies = class_frequencies(train)
        samples: TrainSet
        if self.augment == "crop":
            probe = Probe(model, heads, features, frequencies)
            samples = Augmented(train, SingleRandomResizedCrop(model.arch.image_size), ctx.seed)
        else:
            bank, bank_labels = run_models(extract, train, transform, machine=ctx.machine)
            machine = replace(machine, workers=0)  # features lie in memory already
            probe, samples = FeatureProbe(heads, frequencies), Features(train, bank["f"], bank_labels)
        last_epoch = fit(
            probe,
            samples,
            [group for head in made for group in lars_groups(head)],
            training=self.training,
            machine=machine,
            seed=ctx.seed,
            folder=ctx.folder,
            key=ctx.key,
            title="linear probe",
        )
        clear_resume(ctx.folder)
        batch, classes = self.training.effective_batch, train.classes
        last_epoch["loss"] = last_epoch["first_loss"]  # as what `learned` says
        ctx.warnings.extend(not_learned(last_epoch, images=len(train), batch=batch, classes=len(classes)))
        with torch.no_grad():
            logits = heads.eval().cpu()(queries["f"])
        check_finite(logits, val, "logits")
        predictions = logits.argmax(dim=2)
        found = [(facets, predictions[:, place]) for place, facets in enumerate(block_facets(self.blocks))]
        ctx.save_outcomes(val, labels, found)
        common: dict[str, Any] = {"benchmark": val.name, "split": val.split, "chance": chance(classes)}
        for facets, predicted in found:
            value, n = accuracy(predicted, labels)
            yield Measurement(metric="top1", value=value, n=n, facets=facets, **common)


class Heads(nn.ModuleList):
    """A head for each of the vectors that stand for an image; none sees another's."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, P, D) to logits (N, P, classes)."""
        return torch.stack([head(features[:, place]) for place, head in enumerate(self)], dim=1)


def make_head(dim: int, num_classes: int) -> nn.Sequential:
    """BatchNorm without affine (eps 1e-6) and a linear layer with std 0.01 weights, as in main_linprobe.py."""
    linear = nn.Linear(dim, num_classes)
    nn.init.trunc_normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(dim, affine=False, eps=1e-6), linear)


def lars_groups(head: nn.Sequential) -> list[dict[str, Any]]:
    """The weight is scaled by LARS's trust ratio even without decay, the bias is not (mae, util/lars.py)."""
    return [
        {"params": [head[1].weight], "weight_decay": 0.0, "always_adapt": True},
        {"params": [head[1].bias], "weight_decay": 0.0, "always_adapt": False},
    ]


class FeatureProbe(nn.Module):
    """Heads that are trained on features of the whole effective batch, which were extracted before.

    Args:
        heads: What is trained.
        frequencies: (classes,) of the labels.
    """

    frequencies: Tensor

    def __init__(self, heads: Heads, frequencies: Tensor) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("frequencies", frequencies, persistent=False)

    def frozen_features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features and labels of one pass."""
        return {"feature": batch["feature"], "label": batch["label"]}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross entropy of features (N, P, D), summed over heads, and what `learned` says of the first head."""
        labels = batch["label"]
        logits = self.heads(batch["feature"])
        targets = F.one_hot(labels, len(self.frequencies)).float()
        first = logits[:, 0]
        reached = learned(first, labels, self.frequencies, targets, lambda answers: F.nll_loss(log(answers), labels))
        losses = torch.stack([F.cross_entropy(part, labels) for part in logits.unbind(1)])
        return {"loss": losses.sum(), "first_loss": losses[0], **reached}


class Probe(FeatureProbe):
    """Likewise, on features of uint8 images that a frozen backbone makes.

    Args:
        backbone: The network.
        heads: What is trained.
        features: Those of the network, as `frozen_features` makes them.
        frequencies: (classes,) of the labels.
    """

    def __init__(
        self, backbone: Backbone, heads: Heads, features: Callable[[Tensor], Tensor], frequencies: Tensor
    ) -> None:
        super().__init__(heads, frequencies)
        self.backbone, self.features = backbone.requires_grad_(False).eval(), features

    def frozen_features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features and labels of one pass."""
        return {"feature": self.features(batch["image"].float() / 255), "label": batch["label"]}


class Features(torch.utils.data.Dataset[dict[str, Any]]):
    """Extracted features as training samples."""

    def __init__(self, images: ImageSet, features: Tensor, labels: Tensor) -> None:
        self.images, self.features, self.labels = images, features, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        return {"feature": self.features[where[1]], "label": self.labels[where[1]], "index": where[1]}

    def image_id(self, index: int) -> str:
        """The image's name."""
        return self.images.image_id(index)
