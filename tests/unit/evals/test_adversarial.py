"""Attacks on a small real classifier: bounds, hand-written references, and proofs that catch broken attacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchattacks
from torch import Tensor
from torch.nn import functional as F

from cim_bench.benchmark import RandomInit
from cim_bench.contracts.context import Context
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine.inference import fp32_eval, run_models
from cim_bench.evals.adversarial import Adversarial, SampleNoise, check_attacked
from cim_bench.evals.classifier import make_classifier
from cim_bench.jobs.identity import protocol_info
from cim_bench.jobs.passes import measure
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.records.facets import as_255, column_name
from cim_bench.records.outcomes import read_outcomes
from cim_bench.spec import Arch, Data, Machine

EPS = 4 / 255


@pytest.fixture(scope="module")
def trained(tiny_arch: Arch, small_photos: Data, cpu: Machine, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A classifier that knows its training photographs, and a context that scores them."""
    checkpoint = random_checkpoint(RandomInit(arch=tiny_arch), seed=0)
    torch.manual_seed(0)
    model = make_classifier(load_backbone(checkpoint, what="r"), 4, drop_path=0.0, head_std=0.02)
    data = replace(small_photos, val_split="train")
    context = Context(data=data, machine=cpu, seed=0, folder=tmp_path_factory.mktemp("job"), subject=checkpoint.meta)
    pixels, labels = run_models({"x": lambda x: x}, context.scored_images(), EvalTransform(32, 1.0), machine=cpu)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = F.cross_entropy(model(pixels["x"]), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().classes = context.scored_images().classes
    return model, context, pixels["x"], labels


@pytest.fixture
def job(trained: Any, tmp_path: Path) -> tuple[Backbone, Context, Tensor, Tensor]:
    model, context, pixels, labels = trained
    return model, replace(context, folder=tmp_path, warnings=[]), pixels, labels


def values(evaluator: Adversarial, model: Backbone, context: Context) -> dict[str, float]:
    """Top-1 by the name of the outcome column."""
    settings = protocol_info(evaluator).settings
    return {column_name(m.facets, settings): m.value for m in measure(evaluator, model, context)}


def test_attacks_hurt_and_clean_is_clean(job: Any) -> None:
    model, context, pixels, labels = job
    found = values(Adversarial(eps=(EPS,), alpha=2 / 255, crop_pct=1.0), model, context)
    clean = float((model(pixels).argmax(1) == labels).float().mean())
    assert found["clean"] == pytest.approx(clean) == 1.0
    assert found["pgd"] <= found["fgsm"] < 1.0
    assert context.warnings == []


def test_fgsm_is_one_signed_step_in_pixel_space(job: Any) -> None:
    model, context, pixels, labels = job
    found = values(Adversarial(attacks=("fgsm",), eps=(EPS,), crop_pct=1.0), model, context)
    moved = pixels.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(moved), labels), moved)
    attacked = (pixels + EPS * gradient.sign()).clamp(0, 1)
    assert found["fgsm"] == pytest.approx(float((model(attacked).argmax(1) == labels).float().mean()))


def test_pgd_by_hand(job: Any) -> None:
    """The same random starts, then projected signed steps written out."""
    model, context, pixels, labels = job
    evaluator = Adversarial(attacks=("pgd",), eps=(EPS,), alpha=1 / 255, steps=3, crop_pct=1.0)
    values(evaluator, model, context)
    part = evaluator.parts(context)[0]
    seeds = [part.sample_seeds(_Batch(torch.tensor([i])))[0] for i in range(len(labels))]
    noise = torch.stack([torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(s)) for s in seeds])
    x = (pixels + (2 * noise - 1) * EPS).clamp(0, 1)
    for _ in range(3):
        x.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
        x = (pixels + (x.detach() + gradient.sign() / 255 - pixels).clamp(-EPS, EPS)).clamp(0, 1)
    table = read_outcomes(context.folder / "outcomes" / "images-000.parquet")
    agree = torch.tensor(table["pgd"].to_pylist()) == model(x).argmax(1)
    assert agree.float().mean() >= 0.95  # a sign flips where a gradient is nearly 0


class _Batch:
    def __init__(self, indices: Tensor) -> None:
        self.indices = indices


def test_batch_size_does_not_matter(job: Any, tmp_path: Path) -> None:
    model, context, *_ = job
    evaluator = Adversarial(eps=(EPS,), crop_pct=1.0, restarts=2)
    found = []
    for size in (5, 48):
        machine = replace(context.machine, micro_batch=size)
        found.append(values(evaluator, model, replace(context, machine=machine, folder=tmp_path / str(size))))
    assert found[0] == found[1]


def test_a_subset_comes_first_and_moves_no_number(job: Any, tmp_path: Path) -> None:
    """Random starts belong to images, so that parts do not matter; 8 of 48 images hold two of each of four classes."""
    model, context, *_ = job
    whole = Adversarial(eps=(EPS,), crop_pct=1.0)
    cut = replace(whole, subset=8)
    first, *rest = cut.parts(context)
    assert (first.subset, len(first.images)) == (True, 8)
    assert sorted(first.images.labels() or []) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sum(len(part.images) for part in rest) == len(context.scored_images()) - 8
    folders = (tmp_path / name for name in ("whole", "cut"))
    one, two = (values(e, model, replace(context, folder=f)) for e, f in zip((whole, cut), folders, strict=True))
    assert one == two


def test_restarts_can_only_hurt_and_a_curve_falls(job: Any, tmp_path: Path) -> None:
    model, context, *_ = job
    one = values(Adversarial(eps=(EPS,), crop_pct=1.0), model, replace(context, folder=tmp_path / "1"))
    three = values(Adversarial(eps=(EPS,), crop_pct=1.0, restarts=3), model, replace(context, folder=tmp_path / "3"))
    assert three["pgd"] <= one["pgd"]
    curve = values(Adversarial(eps=(1 / 255, 8 / 255), crop_pct=1.0), model, replace(context, folder=tmp_path / "c"))
    assert set(curve) == {"clean", "fgsm", "pgd", "fgsm eps=8/255", "pgd eps=8/255"}
    assert curve["pgd eps=8/255"] <= curve["pgd"]


@pytest.mark.parametrize("attack", ["mifgsm", "PGDL2", "CW"])
def test_other_attacks_by_name(attack: str, job: Any) -> None:
    model, context, *_ = job
    found = values(Adversarial(attacks=(attack,), eps=(EPS,), crop_pct=1.0, steps=2), model, context)
    assert 0 <= found[attack] <= 1
    assert bool(context.warnings) == (attack != "mifgsm")  # no L-infinity bound to check


def test_the_model_is_left_as_it_was_found(job: Any) -> None:
    model = job[0]
    model.train().requires_grad_(True)
    model.net.pos_embed.requires_grad_(False)
    with fp32_eval(model):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.training
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["net.pos_embed"]
    model.eval()


# Broken on purpose: each must end the job instead of giving a number.


class NormalisedSpace(torchattacks.FGSM):
    """Steps as if images were divided by 0.225: the classic wrong space."""

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return (images + (super().forward(images, labels) - images) / 0.225).clamp(0, 1)


class Unclamped(torchattacks.FGSM):
    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return images + self.eps * (images > 0.5) - self.eps * (images <= 0.5)


class NeverZero(torchattacks.FGSM):
    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return (images + 0.2 / 255).clamp(0, 1)


@pytest.fixture
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchattacks, "FGSM", request.param)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (NormalisedSpace, "changes a pixel by .*/255, more than eps 4/255"),
        (Unclamped, r"leaves the range \[0, 1\]"),
        (NeverZero, "at eps 0 changes images"),
    ],
    indirect=["broken"],
)
def test_a_broken_attack_gives_no_number(broken: None, message: str, job: Any) -> None:
    model, context, *_ = job
    with pytest.raises(ArithmeticError, match=message):
        measure(Adversarial(attacks=("fgsm",), eps=(EPS,), crop_pct=1.0), model, context)
    assert not list((context.folder / "outcomes").glob("*.parquet")) if (context.folder / "outcomes").exists() else True


def test_pgd_weaker_than_fgsm_is_a_warning(job: Any) -> None:
    model, context, *_ = job
    evaluator = Adversarial(eps=(EPS,), alpha=0.01 / 255, steps=1, crop_pct=1.0)
    found = values(evaluator, model, context)
    assert found["pgd"] > found["fgsm"]
    assert "PGD leaves" in context.warnings[0]
    assert "4/255" in context.warnings[0]


def test_unknown_attacks_and_eps_and_classes_are_refused(job: Any) -> None:
    model, context, *_ = job
    with pytest.raises(ValueError, match=r"no attack 'fgsn'; choose one of .*fgsm"):
        Adversarial(attacks=("fgsn",))
    with pytest.raises(ValueError, match=r"eps\[0\] is 0\.0; it must be a number, above 0 and at most 1"):
        Adversarial(eps=(0.0,))
    model.classes = ("a", "b")
    with pytest.raises(
        ValueError, match=r"4 classes and 4 of them, e\.g\. astronaut, are not among the classifier's 2"
    ):
        Adversarial().check(model, context)
    model.classes = context.scored_images().classes


def test_a_set_of_some_of_the_classes_goes_by_name(job: Any, own_photos: Data) -> None:
    """Without astronauts, labels shift by one; an answer outside the set's classes is wrong, not another class."""
    import shutil

    model, context, *_ = job
    shutil.rmtree(Path(own_photos.root, "val", "astronaut"))
    context = replace(context, data=own_photos)
    evaluator = Adversarial(attacks=("fgsm",), eps=(EPS,), crop_pct=1.0)
    found = values(evaluator, model, context)
    images = context.scored_images()
    pixels, _ = run_models({"x": lambda x: x}, images, EvalTransform(32, 1.0), machine=context.machine)
    names = [model.classes[i] for i in model(pixels["x"]).argmax(1).tolist()]
    truth = [images.image_id(i).split("/")[0] for i in range(len(images))]
    assert found["clean"] == sum(a == b for a, b in zip(names, truth, strict=True)) / 18
    assert "astronaut" in names
    table = read_outcomes(context.folder / "outcomes" / "images-000.parquet")
    assert -1 in table["clean"].to_pylist()


def test_values_in_grey_levels() -> None:
    assert as_255(1 / 255) == "1/255"
    assert as_255(0.5 / 255) == "0.5/255"
    with pytest.raises(ArithmeticError, match="leaves the range"):
        check_attacked(torch.full((1, 3, 2, 2), float("nan")), torch.zeros(1, 3, 2, 2), EPS, "x")


def test_starts_belong_to_samples_and_other_draws_are_left_alone() -> None:
    with SampleNoise([7, 8]):
        both = torch.empty(2, 3).uniform_(-1, 1)
        other = torch.empty(5, 3).uniform_(-1, 1)
    with SampleNoise([8]):
        alone = torch.empty(1, 3).uniform_(-1, 1)
    assert both[1].equal(alone[0])
    assert both.abs().max() <= 1
    assert other.shape == (5, 3)


def test_starts_without_bounds_or_with_named_ones_are_those_of_torch() -> None:
    with SampleNoise([7]):
        plain = torch.empty(1, 1000).uniform_()
        named = torch.empty(1, 1000).uniform_(to=3.0)
    assert (0 <= plain.min() < 0.1, 0.9 < plain.max() <= 1) == (True, True)
    assert torch.allclose(named, 3 * plain)
