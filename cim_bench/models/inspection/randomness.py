"""Evidence that a network was never trained, from its weights and its features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cim_bench.models.backbone import Backbone, triple
from cim_bench.models.sizing import at_size, patch_size

IMAGES = 32
MOST_PATCHES, FEWER_PATCHES = 14, 10  # a side: beyond the first the evidence is gathered at the second, in less time
MIN_INITIAL_NORMS, MAX_SPECTRAL_RATIO, MIN_SIMILARITY = 0.9, 1.1, 0.7  # of a random network, see `Evidence.verdict`


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What distinguishes a trained network from a freshly initialised one.

    Attributes:
        norms: Normalisation layers.
        initial_norms: Names of those whose weight is still all 1 (or all 0) and whose bias is all 0.
        spectral_ratio: Median over the matrices of the largest singular value, divided by that of a random matrix of
            the same shape and spread; training makes it grow.
        similarity: Linear CKA of the features with those of a freshly initialised network, on the same images.
        finite: Whether all features are finite numbers.
        constant: Whether all images get the same feature.
    """

    norms: int
    initial_norms: tuple[str, ...]
    spectral_ratio: float
    similarity: float
    finite: bool
    constant: bool

    @property
    def verdict(self) -> str:
        """Whether the network looks trained, in one sentence.

        The limits lie between what random networks of timm show (all norms untouched, ratios of 0.95 to 1.0, CKA of
        0.74 to 0.99) and what trained ones do (timm's trained EfficientNet-Lite0: no norm untouched, CKA of 0.4 to
        0.5); `tests/unit/cim_bench/models/inspection/test_inspect.py` holds both sides.
        """
        if not self.finite:
            return "features are NOT FINITE: the weights or their normalisation are broken"
        if self.constant:
            return "features are THE SAME for all images: the network has collapsed"
        as_initialised = len(self.initial_norms) >= MIN_INITIAL_NORMS * self.norms
        if as_initialised and (self.spectral_ratio < MAX_SPECTRAL_RATIO or self.similarity > MIN_SIMILARITY):
            return "this looks like a RANDOM network: it was never trained, or its weights were never loaded"
        if self.spectral_ratio < MAX_SPECTRAL_RATIO and self.similarity > MIN_SIMILARITY:
            return (
                "LITTLE trained: norms moved, but matrices and features still resemble a random network's, as after "
                "some thousand steps; a published checkpoint should not"
            )
        if self.initial_norms:
            return (
                f"trained, EXCEPT these norms, which are as they were initialised: {', '.join(self.initial_norms[:6])}"
            )
        return "trained: neither weights nor features are those of a random network"

    @property
    def warning(self) -> str:
        """The verdict as a warning of a record; empty for a trained network."""
        return "" if self.verdict.startswith("trained: ") else f"weights from elsewhere: {self.verdict}"


@torch.no_grad()
def examine(model: Backbone) -> Evidence:
    """Gather the evidence from a model's weights, and from its features on smooth random images.

    Args:
        model: In eval mode, on the CPU.
    """
    state = model.net.state_dict()
    norms = norm_layers(state)
    model = _at_moderate_size(model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = Backbone(model.arch, mean=triple(model.mean), std=triple(model.std)).eval()
    own, other = features(model), features(fresh)
    finite = bool(torch.isfinite(own).all())
    spread = float((own - own.mean(dim=0)).norm() / own.norm().clamp_min(1e-30)) if finite else 0.0
    return Evidence(
        norms=len(norms),
        initial_norms=tuple(name for name in norms if _is_initial(state, name)),
        spectral_ratio=median_spectral_ratio(state),
        similarity=cka(own, other) if finite else 0.0,
        finite=finite,
        constant=spread < 1e-5,
    )


def _at_moderate_size(model: Backbone) -> Backbone:
    """The same weights at fewer patches, where a ViT has more than `MOST_PATCHES` a side."""
    patch = patch_size(model)
    if model.arch.image_size <= MOST_PATCHES * patch:
        return model
    return at_size(model, FEWER_PATCHES * patch, how="antialias")


def norm_layers(state: Mapping[str, Tensor]) -> list[str]:
    """Layers with a vector as weight and another as bias."""
    names = [key.removesuffix(".weight") for key, value in state.items() if key.endswith(".weight") and value.ndim == 1]
    return [name for name in names if f"{name}.bias" in state]


def _is_initial(state: Mapping[str, Tensor], name: str) -> bool:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return bool((bias == 0).all()) and bool((weight == 1).all() or (weight == 0).all())  # 0: last norm of a branch


def median_spectral_ratio(state: Mapping[str, Tensor], steps: int = 30) -> float:
    """Median of largest singular value / (std (sqrt(rows) + sqrt(columns))), Marchenko and Pastur's edge.

    Args:
        state: Its matrices and convolutions of at least 16 x 16; class heads are left out.
        steps: Of the power iteration.
    """
    ratios = []
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.ndim < 2 or not name.endswith(".weight") or name.startswith(("head.", "fc.", "classifier.")):
            continue
        matrix = value.reshape(value.shape[0], -1).float()
        spread = float(matrix.std())
        if min(matrix.shape) < 16 or spread == 0.0:
            continue
        vector = torch.randn(matrix.shape[1], generator=generator)
        for _step in range(steps):
            vector = F.normalize(matrix.T @ (matrix @ vector), dim=0)
        ratios.append(float((matrix @ vector).norm()) / (spread * sum(math.sqrt(side) for side in matrix.shape)))
    return sorted(ratios)[len(ratios) // 2] if ratios else math.nan


def features(model: Backbone) -> Tensor:
    """Mean over places of the last feature map of a ViT or CNN, else timm's pooled feature; (images, width)."""
    coarse = torch.rand(IMAGES, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    size = model.arch.image_size
    rows = []
    for batch in torch.split(F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1), 8):
        output = model.net.forward_features(model.normalize(batch))
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] == model.net.num_features:
            rows.append(output.flatten(2).mean(dim=2))
        elif isinstance(output, Tensor) and output.ndim == 3:
            rows.append(output.mean(dim=1))
        else:  # channels last, several branches
            rows.append(model.net.forward_head(output, pre_logits=True))
    return torch.cat(rows)


def cka(a: Tensor, b: Tensor) -> float:
    """Linear centred kernel alignment (Kornblith et al., Similarity of Neural Network Representations, 2019)."""
    a, b = (x.double() - x.double().mean(dim=0) for x in (a, b))
    same = (a.T @ a).norm() * (b.T @ b).norm()
    return float((a.T @ b).norm() ** 2 / same) if same > 0 else 0.0
