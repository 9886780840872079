"""When a training has not learned: bounds by hand on the targets of each loss, and real photographs at a rate of 0."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cim_bench.benchmark import RandomInit
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.data.images import ImageSet
from cim_bench.evals.classifier import make_classifier
from cim_bench.evals.finetune import Finetune, FinetuneModel
from cim_bench.evals.learning import CHANCE_BOUND, LEAST_LEARNED, class_frequencies, not_learned
from cim_bench.evals.linear_probe import FeatureProbe, Heads, LinearProbe
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import load_backbone
from cim_bench.records.measurement import Measurement
from cim_bench.spec import Arch, Data, Machine, Training

LABELS = torch.tensor([0, 0, 0, 1])
SHARES = torch.tensor([0.75, 0.25])
PRIOR_ENTROPY = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))


class Fixed(torch.nn.Module):
    """Stands for a classifier: its images are its logits."""

    num_classes = 2

    def forward(self, images: Tensor) -> Tensor:
        return images


def logged(recipe: Finetune, logits: Tensor) -> dict[str, float]:
    model: Any = FinetuneModel(Fixed(), recipe, SHARES)  # type: ignore[arg-type]
    return {name: float(value) for name, value in model({"image": logits, "label": LABELS}).items()}


def plain(**changes: Any) -> Finetune:
    return replace(Finetune(mixup=0.0, cutmix=0.0, smoothing=0.0), **changes)


def test_a_probes_ends_by_hand() -> None:
    probe = FeatureProbe(Heads([torch.nn.Identity()]), SHARES)
    features = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    found = probe({"feature": features[:, None], "label": LABELS})
    assert float(found["accuracy"]) == 0.75
    assert float(found["constant_loss"]) == pytest.approx(PRIOR_ENTROPY, rel=1e-5)
    assert float(found["perfect_loss"]) == 0.0


def test_smoothing_raises_what_a_perfect_answer_has() -> None:
    found = logged(plain(smoothing=0.2), torch.zeros(4, 2))
    own, other = 0.9, 0.1  # 0.8 + 0.2 / 2
    assert found["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert found["perfect_loss"] == pytest.approx(-(own * math.log(own) + other * math.log(other)), rel=1e-4)
    first = 0.75 * own + 0.25 * other
    assert found["constant_loss"] == pytest.approx(
        -(first * math.log(first) + (1 - first) * math.log(1 - first)), rel=1e-4
    )


def test_binary_cross_entropy_is_measured_against_none_of_all() -> None:
    """With the shares as probabilities, both outputs of two classes have the same entropy; ln 2 is no bound."""
    shares = torch.logit(SHARES).expand(4, 2)
    found = logged(plain(loss="bce"), shares)
    assert found["loss"] == pytest.approx(found["constant_loss"], rel=1e-5)
    assert found["constant_loss"] == pytest.approx(PRIOR_ENTROPY, rel=1e-5)
    assert found["perfect_loss"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("changes", [{}, {"loss": "bce"}, {"loss": "bce", "bce_threshold": 0.2}])
def test_mixtures_are_measured_on_the_targets_that_were_drawn(changes: dict[str, Any]) -> None:
    """Whatever was drawn, no answer beats the perfect one, and the constant one lies between it and others."""
    torch.manual_seed(0)
    for _ in range(20):
        found = logged(plain(mixup=0.8, cutmix=0.0, **changes), torch.randn(4, 2) * 4)
        assert found["perfect_loss"] <= found["constant_loss"] + 1e-6
        assert found["perfect_loss"] <= found["loss"] + 1e-6


def end(accuracy: float, loss: float, constant: float = math.log(10), perfect: float = 0.0) -> dict[str, float]:
    return {"accuracy": accuracy, "loss": loss, "constant_loss": constant, "perfect_loss": perfect}


@pytest.mark.parametrize(
    ("last_epoch", "warned"),
    [
        (end(0.10, 2.31), True),  # a guess
        (end(0.50, 1.40), False),
        (end(0.30, 2.28), True),  # on its way, hardly begun: 1 % of it
        (end(0.30, 2.15), False),  # 7 %
        (end(0.11, 1.90), True),  # the loss says so, the answers do not
        (end(0.60, 9.0), True),  # diverged: worse than saying nothing
        (end(0.60, 2.26, perfect=1.9), False),  # mixed targets: 2.26 of [1.9, 2.30] is 11 % of the way
    ],
)
def test_either_bound_is_enough(last_epoch: dict[str, float], warned: bool) -> None:
    found = not_learned(last_epoch, images=1030, batch=100, classes=10)
    assert bool(found) == warned
    for sentence in found:
        assert "has hardly learned" in sentence
        assert "of 1,000 training images" in sentence
        assert "a guess has 10.0%" in sentence
        assert "a constant answer has 2.303" in sentence


@given(classes=st.integers(2, 1000), images=st.integers(64, 10**6), constant=st.floats(0.01, 7))
def test_what_guesses_is_always_named_and_what_knows_never(classes: int, images: int, constant: float) -> None:
    guess = end(1 / classes, constant, constant)
    knows = end(1.0, constant * (1 - 2 * LEAST_LEARNED), constant)
    assert not_learned(guess, images=images, batch=64, classes=classes)
    assert not not_learned(knows, images=images, batch=64, classes=classes)


def test_one_training_in_44_guesses_above_the_bound() -> None:
    assert 1 / (0.5 * math.erfc(CHANCE_BOUND / math.sqrt(2))) == pytest.approx(44, abs=0.1)


def test_frequencies_of_labels(small_photos: Data) -> None:
    images = ImageSet(small_photos, "train")
    assert class_frequencies(images).tolist() == [0.25] * 4
    assert class_frequencies(images.take([0, 1, 2, 12])).tolist() == [0.75, 0.25, 0.0, 0.0]


RUNS = {
    "probe": (LinearProbe, {"augment": "none", "feature": "mean_patch"}, 8.0, 12),
    "finetune": (Finetune, {"mixup": 0.0, "cutmix": 0.0, "auto_augment": "", "reprob": 0.0}, 0.05, 6),
}


@pytest.mark.parametrize("name", list(RUNS))
def test_photographs_at_a_rate_of_nothing_and_at_a_real_one(
    name: str, small_photos: Data, tiny_arch: Arch, cpu: Machine, tmp_path: Path
) -> None:
    kind, settings, rate, epochs = RUNS[name]
    checkpoint = random_checkpoint(RandomInit(arch=tiny_arch), seed=0)
    warnings = {}
    for base_lr in (1e-9, rate):
        optimizer, decay = ("sgd", 0.0) if rate > 1 else ("adamw", 0.05)
        training = Training(epochs=epochs, effective_batch=16, base_lr=base_lr, optimizer=optimizer, weight_decay=decay)
        evaluator: Evaluator = kind(training=training, **settings)
        context = Context(
            data=small_photos, machine=cpu, seed=0, folder=tmp_path / f"{base_lr}", subject=checkpoint.meta
        )
        (measured,) = evaluator.run(load_backbone(checkpoint, what="random"), context)
        assert isinstance(measured, Measurement)
        assert measured.chance == 0.25
        warnings[base_lr] = context.warnings
    (sentence,) = warnings[1e-9]
    assert "of 48 training images" in sentence
    assert "a constant answer has 1.386" in sentence
    assert warnings[rate] == []


def test_the_readings_do_not_enter_the_weights(tiny_arch: Arch) -> None:
    classifier = make_classifier(
        load_backbone(random_checkpoint(RandomInit(arch=tiny_arch), seed=0), what="r"), 2, drop_path=0.0, head_std=0.5
    )
    model = FinetuneModel(classifier, plain(), SHARES)
    assert all(name.startswith("classifier.") for name in model.state_dict())
    found = model({"image": torch.rand(4, 3, 32, 32), "label": LABELS})
    assert [name for name, value in found.items() if value.requires_grad] == ["loss"]
