"""Protocols that look at frozen features of whole sets, and the one function through which they ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image

from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.engine.devices import make_accelerator
from cim_bench.engine.features import Extractor, FeatureFile, SetFeatures, claim, extract_features
from cim_bench.engine.inference import LabelledImages, Transform
from cim_bench.models.backbone import Backbone

FEATURES = "features"


class FeatureEvaluator(Evaluator):
    """Contract of a protocol whose `run` looks at frozen features of whole sets, which it asks `features` for.

    The runner makes one pass over each set for all subjects before any of them is measured. The features lie in the
    job's folder until it has its records, so that a killed run goes on from there.
    """

    @property
    def shares(self) -> bool:
        """Whether jobs of several subjects are to be started together, for one pass: not if `sets` is empty."""
        return True

    def sets(self, ctx: Context) -> Mapping[str, LabelledImages]:
        """The sets whose features are wanted, by the name under which `run` finds them; the same for all models."""
        raise NotImplementedError

    def transform(self, model: Backbone) -> Transform:
        """From a decoded image to what the model's `extractor` takes; equal transforms are applied once."""
        raise NotImplementedError

    def extractor(self, model: Backbone) -> Extractor:
        """From prepared images (B, 3, H, W) uint8 on the model's device to features (B, ...), in a type of NumPy's."""
        raise NotImplementedError

    def check(self, model: Backbone) -> None:
        """Refuse a model that has no such features, before anything is decoded.

        Raises:
            ValueError: Saying what does not fit.
        """
        blank = self.transform(model)(Image.new("RGB", (8, 8)))[None]
        with torch.no_grad():
            self.extractor(model)(blank.to(model.mean.device))

    def features(self, model: Backbone, ctx: Context) -> dict[str, SetFeatures]:
        """The features of all `sets` for one model, read from the job's folder, and made first where they lack."""
        return features_of(self, {"": model}, {"": ctx})[""]


def features_of(
    evaluator: FeatureEvaluator, models: Mapping[str, Backbone], contexts: Mapping[str, Context]
) -> dict[str, dict[str, SetFeatures]]:
    """Features of all sets of a protocol for all models: each image is decoded once, unless they are kept already.

    Args:
        evaluator: The protocol.
        models: On their device, by name.
        contexts: Of the same names; features are kept in their folders under their keys.

    Returns:
        Memory-mapped features by model and set, on every process.

    Raises:
        ValueError: If an image or kept features cannot be read.
        OSError: Naming the file, if it cannot be written.
    """
    first = next(iter(contexts.values()))
    sets = evaluator.sets(first)
    extractors = {name: evaluator.extractor(model) for name, model in models.items()}
    transforms = {name: evaluator.transform(model) for name, model in models.items()}
    for context in contexts.values():
        claim(features_folder(context), context.key, machine=context.machine)
    found: dict[str, dict[str, SetFeatures]] = {name: {} for name in models}
    for part, images in sets.items():
        files = {name: FeatureFile(features_folder(contexts[name]), part, len(images)) for name in models}
        extract_features(extractors, files, transforms, images, machine=first.machine)
        make_accelerator(first.machine).wait_for_everyone()  # all rows are there
        for name, file in files.items():
            found[name][part] = file.read()
    return found


def features_folder(ctx: Context) -> Path:
    """Where a job keeps its features."""
    return ctx.folder / FEATURES
