"""FGSM, PGD and other attacks of torchattacks on classifiers that take images in [0, 1].

Default settings are RVT's (vtddggg/Robust-Vision-Transformer, engine.py): eps 1/255, PGD with alpha 0.5/255,
5 steps and a random start. The paper's slides name the same columns and give no settings, so RVT's are inferred.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval, MinLen
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cim_bench.common.numbers import ROUNDING
from cim_bench.common.ranges import CropPct, Distinct, NotNegative, Positive
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import SetEvaluator
from cim_bench.contracts.parts import Part, split_parts
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine.inference import ImageBatch, fp32_eval
from cim_bench.evals.classes import chance, class_indices
from cim_bench.models.backbone import Backbone
from cim_bench.records.facets import CLEAN, Facets, as_255
from cim_bench.records.measurement import Measurement
from cim_bench.records.outcomes import Count
from cim_bench.spec import Data

Eps = Annotated[float, Interval(gt=0, le=1)]  # of a pixel in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Adversarial(SetEvaluator):
    """Top-1 under attack, white box, in pixel space.

    Attributes:
        attacks: ``fgsm``, ``pgd``, or any class name of torchattacks.
        eps: Largest changes of a pixel (L-infinity), on the scale of [0, 1]; tables show the first.
        alpha: Step size of iterated attacks at the first eps, likewise; it grows in proportion with further ones.
        steps: Of iterated attacks.
        restarts: Attacks an image from this many random starts; it must withstand all.
        crop_pct: Of the evaluation transform.
        subset: Images of a stratified subset that is attacked first; 0 for none.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[Literal["backbone", "classifier"]] = "classifier"

    attacks: Annotated[tuple[Annotated[str, MinLen(1)], ...], MinLen(1), Distinct()] = ("fgsm", "pgd")
    eps: Annotated[tuple[Eps, ...], MinLen(1), Distinct()] = (1 / 255,)
    alpha: Eps = 0.5 / 255
    steps: Positive = 5
    restarts: Positive = 1
    crop_pct: CropPct = 0.875
    subset: NotNegative = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for attack in set(self.attacks) - {"fgsm", "pgd"}:  # the defaults need no import
            if importlib.util.find_spec("torchattacks"):  # else `check` says how to install it
                attack_class(attack)

    def reads(self, data: Data) -> tuple[tuple[Data, str], ...]:
        """The validation images."""
        return ((data, data.val_split),)

    def check(self, model: Backbone, ctx: Context) -> None:
        """The images' classes must be among the classifier's, and the attacks must exist."""
        images = ctx.scored_images()
        class_indices(images.classes, model.classes, images.name)
        for attack in self.attacks:
            attack_class(attack)

    def parts(self, ctx: Context) -> list[Part]:
        """The validation images, the subset first, in pieces."""
        return split_parts(ctx.scored_images(), seed=ctx.seed, subset=self.subset)

    def transform(self, model: Backbone) -> EvalTransform:
        """Resize and centre crop; the attack comes after it."""
        return EvalTransform(model.arch.image_size, self.crop_pct)

    def answers(
        self, part: Part, models: Mapping[str, Backbone], pixels: Tensor, batch: ImageBatch
    ) -> Iterator[tuple[str, Facets, Tensor]]:
        """Predictions on clean and on attacked images."""
        images = pixels.float() / 255
        seeds = part.sample_seeds(batch)
        for name, model in models.items():
            outputs = class_indices(part.images.classes, model.classes, part.images.name).to(images.device)
            labels = outputs[batch.labels]
            with fp32_eval(model):
                with torch.no_grad():
                    yield name, {"attack": CLEAN}, folder_of(model(images).argmax(dim=1), outputs)
                for attack in self.attacks:
                    if 0 in batch.indices:
                        self._prove_harmless_at_zero(model, attack, images, labels, seeds)
                    for eps in self.eps:
                        predictions = self._worst(model, attack, eps, images, labels, seeds)
                        yield name, {"attack": attack, "eps": eps}, folder_of(predictions, outputs)

    def _worst(
        self, model: Backbone, attack: str, eps: float, images: Tensor, labels: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """Predictions (B,) on attacked images; of several restarts, the first that misleads the model."""
        worst = labels.clone()
        for restart in range(self.restarts):
            attacked = self._attack(model, attack, eps, images, labels, [seed + restart for seed in seeds])
            check_attacked(attacked, images, eps if bounded(attack) else None, attack)
            with torch.no_grad():
                predictions = model(attacked).argmax(dim=1)
            worst = torch.where(worst == labels, predictions, worst)
        return worst

    def _attack(
        self, model: Backbone, attack: str, eps: float, images: Tensor, labels: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        kind = attack_class(attack)
        alpha = self.alpha * eps / self.eps[0]
        wanted = {"eps": eps, "alpha": alpha, "steps": self.steps, "n_classes": model.num_classes}
        known = inspect.signature(kind.__init__).parameters
        with SampleNoise(seeds), torch.enable_grad():
            attacked: Tensor = kind(model, **{k: v for k, v in wanted.items() if k in known})(images, labels)
        return attacked.detach()

    def _prove_harmless_at_zero(
        self, model: Backbone, attack: str, images: Tensor, labels: Tensor, seeds: Sequence[int]
    ) -> None:
        if bounded(attack) and not self._attack(model, attack, 0.0, images, labels, seeds).equal(images):
            raise ArithmeticError(f"{attack} at eps 0 changes images: it does not attack in pixel space")

    def measure(self, counts: Sequence[Count], ctx: Context) -> Iterator[Measurement]:
        """Top-1 by attack; warns where PGD, the stronger attack, leaves more right than FGSM."""
        images = ctx.data
        for eps in self.eps:
            own = {count.facets["attack"]: count for count in counts if count.facets.get("eps") == eps}
            fgsm, pgd = own.get("fgsm"), own.get("pgd")
            if fgsm and pgd and pgd.right > fgsm.right:
                ctx.warnings.append(
                    f"PGD leaves {pgd.right} of {pgd.n} images right and FGSM {fgsm.right} at eps {as_255(eps)}: "
                    "too few or too small steps, or masked gradients"
                )
        unbounded = [attack for attack in self.attacks if not bounded(attack)]
        if unbounded:
            ctx.warnings.append(f"{', '.join(unbounded)} has no L-infinity bound that could be checked")
        place: dict[str, Any] = {
            "benchmark": images.name,
            "split": images.val_split,
            "chance": chance(ctx.subject.classes),
        }
        for facets, right, n in counts:
            yield Measurement(metric="top1", value=right / n, n=n, facets=facets, **place)


def folder_of(predictions: Tensor, outputs: Tensor) -> Tensor:
    """Place of each predicted output (B,) among the set's folders, given the output of each; -1 for none of them."""
    same = predictions[:, None] == outputs
    return torch.where(same.any(dim=1), same.int().argmax(dim=1), -1)


def attack_class(name: str) -> Any:
    """A class of torchattacks by its name, in any case.

    Raises:
        ValueError: Listing the choices; or because torchattacks is not installed.
    """
    try:
        import torchattacks  # an extra: only this protocol needs it
    except ModuleNotFoundError as error:
        raise ValueError(f"attacks need {error.name}: pip install 'cim-bench[attacks]'") from error
    known = {kind.lower(): kind for kind in torchattacks.__all__}
    if name.lower() not in known:
        raise ValueError(f"torchattacks has no attack {name!r}; choose one of {', '.join(sorted(known))}")
    return getattr(torchattacks, known[name.lower()])


def bounded(attack: str) -> bool:
    """True where the attack promises a largest change of each pixel."""
    return "eps" in inspect.signature(attack_class(attack).__init__).parameters and not attack.lower().endswith("l2")


def check_attacked(attacked: Tensor, images: Tensor, eps: float | None, attack: str) -> None:
    """Prove that an attack kept its bound.

    Args:
        attacked: (B, 3, H, W)
        images: Likewise, in [0, 1].
        eps: Largest change allowed; ``None`` for attacks without one.
        attack: Name, for the message.

    Raises:
        ArithmeticError: If a pixel left [0, 1] or changed by more than eps, or is not finite.
    """
    if not bool(torch.isfinite(attacked).all()) or float(attacked.min()) < 0 or float(attacked.max()) > 1:
        raise ArithmeticError(f"{attack} leaves the range [0, 1] of pixels; its numbers would mean nothing")
    largest = float((attacked - images).abs().max())
    if eps is not None and largest > eps + ROUNDING:
        raise ArithmeticError(
            f"{attack} changes a pixel by {as_255(largest)}, more than eps {as_255(eps)}; "
            "its numbers would mean nothing"
        )


class SampleNoise(TorchFunctionMode):
    """Random starts that depend on each image's own seed and on nothing else.

    torchattacks draws one tensor for a whole batch, so its numbers would depend on the batch size.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.seeds = seeds

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.Tensor.uniform_ or len(args[0]) != len(self.seeds):
            return func(*args, **(kwargs or {}))
        bounds = {"from": 0.0, "to": 1.0, **dict(zip(("from", "to"), args[1:], strict=False)), **(kwargs or {})}
        target, low, high = args[0], bounds["from"], bounds["to"]
        draws = [torch.rand(target.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in self.seeds]
        return target.copy_(low + (high - low) * torch.stack(draws))
