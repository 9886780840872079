"""k-nearest-neighbour classification of frozen features (DINO's protocol, facebookresearch/dino eval_knn.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, MinLen
from torch import Tensor

from cim_bench.common.ranges import CropPct, Distinct, Positive
from cim_bench.contracts.context import Context
from cim_bench.contracts.features import FeatureEvaluator
from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine.features import Extractor
from cim_bench.engine.inference import check_finite
from cim_bench.evals.classes import chance
from cim_bench.evals.features import block_facets, frozen_features
from cim_bench.evals.metrics import accuracy, knn_predict
from cim_bench.models.backbone import Backbone, Feature
from cim_bench.records.facets import Facets
from cim_bench.records.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class KNN(FeatureEvaluator):
    """k-NN on frozen features, DINO's protocol.

    Attributes:
        k: Neighbour counts; one measurement each.
        temperature: T of the votes exp(similarity / T).
        feature: Which vector stands for an image; part of the protocol, for MAE-like ViTs disagree here.
        blocks: Blocks of a transformer, counted from 1, whose output is measured too, without the final norm; one
            measurement for each and each k.
        crop_pct: Fraction of the resized short side that the centre crop keeps; 224 of 256 by default.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "backbone"

    k: Annotated[tuple[Positive, ...], MinLen(1), Distinct()] = (10, 20, 100, 200)
    temperature: Annotated[float, Ge(1e-4)] = 0.07
    feature: Feature = "cls"
    blocks: Annotated[tuple[Positive, ...], Distinct()] = ()
    crop_pct: CropPct = 0.875

    def sets(self, ctx: Context) -> Mapping[str, ImageSet]:
        """The bank is the training split without augmentation."""
        return {"train": ctx.train_images(), "val": ctx.val_images()}

    def transform(self, model: Backbone) -> EvalTransform:
        """Resize and centre crop to the model's own size."""
        return EvalTransform(model.arch.image_size, self.crop_pct)

    def extractor(self, model: Backbone) -> Extractor:
        """One vector an image and block, (B, blocks, width) in fp32."""
        extract = frozen_features(model, self.feature, self.blocks)
        return lambda pixels: extract(pixels.float() / 255).float()

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """Top-1 for each k and block."""
        train, val = ctx.train_images(), ctx.val_images()
        kept = self.features(model, ctx)
        (bank, bank_labels), (queries, labels) = kept["train"].tensors(), kept["val"].tensors()
        check_finite(bank, train)
        check_finite(queries, val)
        found: list[tuple[Facets, Tensor]] = []
        for place, facets in enumerate(block_facets(self.blocks)):
            predictions = knn_predict(
                bank[:, place],
                bank_labels,
                queries[:, place],
                ks=self.k,
                temperature=self.temperature,
                num_classes=len(train.classes),
            )
            found += [({"k": k, **facets}, predicted) for k, predicted in predictions.items()]
        ctx.save_outcomes(val, labels, found)
        common: dict[str, Any] = {"benchmark": val.name, "split": val.split, "chance": chance(train.classes)}
        for facets, predicted in found:
            value, n = accuracy(predicted, labels)
            yield Measurement(metric="top1", value=value, n=n, facets=facets, **common)
