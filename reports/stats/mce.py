"""Mean corruption error: what follows from error rates or outcomes under the fifteen corruptions; no files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import fsum, isfinite
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from cim_bench.reports.stats.arrays import Flags, Floats

# A corruption and its severity.
Damage: TypeAlias = tuple[str, int]
SEVERITIES = (1, 2, 3, 4, 5)


# Mean top-1 error of AlexNet over the five severities, as fractions. Source: Hendrycks & Dietterich,
# "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019, appendix C, with the
# digits that its public re-implementations share (RVT `utils.py`, easyrobust, mmpretrain, AugMix). By name,
# never by position: repositories order their corruptions differently, and zipped lists have gone wrong unseen.
ALEXNET_ERRORS: Mapping[str, float] = MappingProxyType(
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
    }
)


# AlexNet's top-1 error on clean ImageNet-1K val: `ALEXNET_AVERAGE_ERR_CLEAN` of google-research/robustness_metrics
# (reports/imagenet_variants.py), which agrees with torchvision's published 56.522 % top-1 and the paper's 43.5 %.
ALEXNET_CLEAN_ERROR = 0.4348
DAMAGES: tuple[Damage, ...] = tuple((name, severity) for name in ALEXNET_ERRORS for severity in SEVERITIES)


def by_corruption(rates: Mapping[Damage, float]) -> dict[str, list[float]]:
    """Sort rates into one list a corruption, in the order of `SEVERITIES`.

    Raises:
        ValueError: Naming what is missing of the 75 `DAMAGES`, or what is not among them.
    """
    _check_damages(rates)
    return {name: [rates[name, severity] for severity in SEVERITIES] for name in ALEXNET_ERRORS}


def _check_damages(damages: Iterable[Damage]) -> None:
    """Refuse anything but the 75 `DAMAGES`; the extra four corruptions (``speckle_noise`` …) are not in mCE.

    Raises:
        ValueError: Naming what is missing or unknown.
    """
    found = set(damages)
    if unknown := sorted(found - set(DAMAGES)):
        raise ValueError(f"mCE has no {_some(unknown)}; it is over {', '.join(ALEXNET_ERRORS)}, at severities 1 to 5")
    if missing := [damage for damage in DAMAGES if damage not in found]:
        raise ValueError(f"{len(missing)} of {len(DAMAGES)} corruptions are missing: {_some(missing)}")


def mce(errors: Mapping[str, Sequence[float]]) -> float:
    """Mean corruption error, a ratio: 1 is as robust as AlexNet, lower is better (papers print it times 100).

    ``mCE = mean over c of CE_c``, ``CE_c = Σ_s E_{s,c} / Σ_s A_{s,c}``, with AlexNet's error ``A``.

    Args:
        errors: Top-1 errors as fractions, five severities for each of the fifteen corruptions, by name.

    Raises:
        ValueError: Naming a corruption that is missing or unknown, lacks a severity, or has an impossible error.

    Source:
        Hendrycks & Dietterich, ICLR 2019, section 4.
    """
    _check(errors)
    return _mean(fsum(errors[c]) / (len(SEVERITIES) * alexnet) for c, alexnet in ALEXNET_ERRORS.items())


def relative_mce(errors: Mapping[str, Sequence[float]], clean_error: float) -> float:
    """Relative mCE, a ratio: the error added by corruption against what it adds to AlexNet; may be negative.

    ``mean over c of Σ_s (E_{s,c} − E_clean) / Σ_s (A_{s,c} − A_clean)``.

    Args:
        errors: As for `mce`.
        clean_error: Top-1 error on the clean images, a fraction.

    Raises:
        ValueError: As in `mce`, or if `clean_error` is not in [0, 1].

    Source:
        Hendrycks & Dietterich, ICLR 2019, section 4; ``A_clean`` is `ALEXNET_CLEAN_ERROR`.
    """
    _check(errors)
    _check_rate("clean", clean_error)
    n = len(SEVERITIES)
    return _mean(
        (fsum(errors[c]) - n * clean_error) / (n * (alexnet - ALEXNET_CLEAN_ERROR))
        for c, alexnet in ALEXNET_ERRORS.items()
    )


def mean_top1(errors: Mapping[str, Sequence[float]]) -> float:
    """Unnormalised mean top-1 accuracy over the 75 corruption-severity pairs, a fraction.

    Raises:
        ValueError: As in `mce`.
    """
    _check(errors)
    return 1.0 - _mean(fsum(errors[c]) / len(SEVERITIES) for c in ALEXNET_ERRORS)


def image_mce(wrong: Mapping[Damage, Flags]) -> Floats:
    """The share of each image in mCE: ``x_i = (1/15) Σ_c Σ_s err_{i,c,s} / Σ_s A_{s,c}``; mCE is their mean.

    Args:
        wrong: For each of the 75 `DAMAGES`, whether each image was misclassified; images in one order.

    Raises:
        ValueError: As in `by_corruption`.
    """
    _check_damages(wrong)
    pairs = len(ALEXNET_ERRORS) * len(SEVERITIES)
    return _weighted(wrong, {c: 1.0 / (pairs * alexnet) for c, alexnet in ALEXNET_ERRORS.items()})


def image_relative_mce(wrong: Mapping[Damage, Flags], clean: Flags) -> Floats:
    """The share of each image in relative mCE; their mean is relative mCE.

    Args:
        wrong: As for `image_mce`.
        clean: Whether each image was misclassified without corruption, in the same order.

    Raises:
        ValueError: As in `by_corruption`.
    """
    _check_damages(wrong)
    pairs = len(ALEXNET_ERRORS) * len(SEVERITIES)
    weights = {c: 1.0 / (pairs * (alexnet - ALEXNET_CLEAN_ERROR)) for c, alexnet in ALEXNET_ERRORS.items()}
    return _weighted(wrong, weights) - len(SEVERITIES) * fsum(weights.values()) * clean


def _weighted(wrong: Mapping[Damage, Flags], weights: Mapping[str, float]) -> Floats:
    """One weighted sum of errors an image; counts within a corruption first, so that one sum is exact."""
    counts = {c: np.sum([wrong[c, severity] for severity in SEVERITIES], axis=0) for c in weights}
    shares: Floats = np.sum([weights[c] * count for c, count in counts.items()], axis=0)
    return shares


def _mean(values: Iterable[float]) -> float:
    return fsum(values) / len(ALEXNET_ERRORS)


def _check(errors: Mapping[str, Sequence[float]]) -> None:
    _check_damages((name, severity) for name, row in errors.items() for severity in range(1, len(row) + 1))
    for corruption, row in errors.items():
        for error in row:
            _check_rate(corruption, error)


def _check_rate(name: str, error: float) -> None:
    if not isfinite(error) or not 0.0 <= error <= 1.0:
        raise ValueError(f"an error of {name} is {error}; a fraction in [0, 1] is needed")


def _some(damages: Sequence[Damage]) -> str:
    shown = ", ".join(f"{name}-{severity}" for name, severity in damages[:5])
    return f"{shown} and {len(damages) - 5} more" if len(damages) > 5 else shown
