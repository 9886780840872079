"""k-nearest-neighbour classification of frozen features (DINO's protocol, facebookresearch/dino eval_knn.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, MinLen
from torch import Tensor

from cim_bench.common.ranges import CropPct, Distinct, Positive
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine.inference import run_models
from cim_bench.evals.classes import chance
from cim_bench.evals.features import block_facets, frozen_features
from cim_bench.evals.metrics import accuracy, knn_predict
from cim_bench.models.backbone import Backbone, Feature
from cim_bench.records.facets import Facets
from cim_bench.records.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class KNN(Evaluator):
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

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """Top-1 for each k and block; the bank is the training split without augmentation."""
        train, val = ctx.train_images(), ctx.val_images()
        transform = EvalTransform(model.arch.image_size, self.crop_pct)
        extract = {"f": frozen_features(model, self.feature, self.blocks)}
        bank, bank_labels = run_models(extract, train, transform, machine=ctx.machine)
        queries, labels = run_models(extract, val, transform, machine=ctx.machine)
        found: list[tuple[Facets, Tensor]] = []
        for place, facets in enumerate(block_facets(self.blocks)):
            predictions = knn_predict(
                bank["f"][:, place],
                bank_labels,
                queries["f"][:, place],
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
