"""One contract for every registered evaluator, and what each protocol promises, on real photographs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from cim_bench import registry
from cim_bench.benchmark import RandomInit
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.evals.classifier import make_classifier
from cim_bench.evals.finetune import Finetune
from cim_bench.evals.linear_probe import LinearProbe
from cim_bench.jobs.identity import protocol_info
from cim_bench.jobs.passes import measure
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.models.checkpoint import load_checkpoint
from cim_bench.records.confusions import miou, read_confusions
from cim_bench.records.measurement import METRICS, Measurement
from cim_bench.records.outcomes import facets_by_column, read_outcomes
from cim_bench.spec import Arch, Data, IterationTraining, Machine, SlidingTest, Training

SHORT = Training(epochs=2, effective_batch=16, base_lr=1e-2)
LARS = Training(epochs=2, effective_batch=16, base_lr=0.5, optimizer="lars", weight_decay=0.0)
SMALL: dict[str, dict[str, Any]] = {
    "adversarial": {"eps": (2 / 255,), "steps": 2},
    "corruptions": {"source": "generated", "crop_pct": 1.0, "subset": 0},
    "knn": {"k": (1, 5)},
    "linear_probe": {"training": LARS},
    "finetune": {"training": SHORT},
    "segmentation_knn": {"size": 32, "k": (1, 3)},
    "segmentation_linear": {
        "training": IterationTraining(iterations=2, effective_batch=4, lr=1e-3, validations=1),
        "test": SlidingTest(scale=(64, 48), crop=32, strides=(24,)),
    },
    "segmentation_upernet": {
        "training": IterationTraining(iterations=2, effective_batch=4, lr=1e-3, validations=1),
        "test": SlidingTest(scale=(64, 48), crop=32, strides=(24,)),
        "blocks": (0, 1, 2, 3),
        "channels": 8,
    },
}
Job = tuple[Backbone, Context]


NAMES = [name for name in registry.choices("evaluators") if name != "robustbench"]  # has an environment of its own


@pytest.fixture
def job(tiny_arch: Arch, small_photos: Data, tmp_path: Path) -> Job:
    checkpoint = random_checkpoint(RandomInit(arch=tiny_arch), seed=0)
    machine = Machine(device="cpu", workers=0, micro_batch=16)
    context = Context(data=small_photos, machine=machine, seed=0, folder=tmp_path, subject=checkpoint.meta)
    return load_backbone(checkpoint, what="random"), context


def model_for(name: str, job: Job) -> Backbone:
    """The backbone, deep enough for a pyramid, or an untrained classifier of the set's classes."""
    if name == "segmentation_upernet":
        deep = dataclasses.replace(job[0].arch, options={**job[0].arch.options, "depth": 4})
        return load_backbone(random_checkpoint(RandomInit(arch=deep), seed=0), what="random")
    if registry.load(registry.target("evaluators", name)).needs == "backbone":
        return job[0]
    classifier = make_classifier(job[0], 4, drop_path=0.0, head_std=0.5).eval()
    classifier.classes = job[1].scored_images().classes
    return classifier


@pytest.fixture(autouse=True)
def _masks(small_masks: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocols of segmentation read a set of their own."""
    for name in (name for name in NAMES if name.startswith("segmentation_")):
        monkeypatch.setitem(SMALL, name, {**SMALL.get(name, {}), "data": small_masks})


def settings_of(name: str, context: Context) -> dict[str, Any]:
    if name == "shifts":
        return {"data": dataclasses.replace(context.data, name="shifted"), "clean": True, "crop_pct": 1.0}
    return SMALL[name]


def evaluator(name: str, **changes: Any) -> Evaluator:
    made: Evaluator = registry.load(registry.target("evaluators", name))(**{**SMALL.get(name, {}), **changes})
    return made


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, job: Job) -> None:
    """Frozen and keyword-only, versioned, with a card; leaves weights and mode as found; measures every image once."""
    kind = registry.load(registry.target("evaluators", name))
    assert kind.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(kind))
    assert isinstance(kind.version, int)
    assert kind.needs in ("backbone", "classifier")
    card = Path(__file__).parents[2] / "docs" / "protocols" / f"{name}.md"
    if card.parent.exists():
        assert f"version {kind.version}" in card.read_text().lower()
    model, context = model_for(name, job), job[1]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wanted = {key: value.requires_grad for key, value in model.named_parameters()}
    made = evaluator(name, **settings_of(name, context))
    measurements = measure(made, model, context)
    scored = len(made.opens(*made.reads(context.data)[-1]))
    assert measurements
    assert all(isinstance(m, Measurement) and m.metric in METRICS and m.n == scored for m in measurements)
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    assert not model.training
    if kind.needs == "classifier":
        assert {key: value.requires_grad for key, value in model.named_parameters()} == wanted
    if (context.folder / "confusions").exists():
        kept_matrices = read_confusions(context.folder)
        assert len(set(kept_matrices.ids)) == scored
        for m in (m for m in measurements if m.metric == "miou"):
            assert m.value == miou(kept_matrices.sums(m.facets).sum(axis=0))
        return
    for file in (context.folder / "outcomes").iterdir():
        kept = read_outcomes(file)
        table, facets = kept.to_pandas(), facets_by_column(kept, protocol_info(evaluator(name)))
        assert table["id"].is_unique
        last = table.columns[-1]
        value = next(m.value for m in measurements if m.facets == facets[last])
        assert value == (table[last] == table["label"]).sum() / len(table)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_numbers(name: str, job: Job, tmp_path: Path) -> None:
    model, context = model_for(name, job), job[1]
    runs = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        again = dataclasses.replace(context, folder=tmp_path / folder)
        measure(evaluator(name, **settings_of(name, context)), model, again)
        files = sorted(file for what in ("outcomes", "confusions") for file in (tmp_path / folder / what).glob("*"))
        runs.append({file.name: pq.read_table(file).to_pandas() for file in files})
    assert runs[0].keys() == runs[1].keys()
    assert all(runs[0][file].equals(runs[1][file]) for file in runs[0])


@pytest.mark.parametrize("augment", ["crop", "none"])
def test_a_probe_takes_the_statistics_of_the_effective_batch_whatever_the_passes(
    augment: str, job: Job, tmp_path: Path
) -> None:
    """Version 1 took those of one pass, and gave other numbers for other micro-batches under one key."""
    model, context = job
    logs = []
    for micro in (16, 4):
        machine = dataclasses.replace(context.machine, micro_batch=micro, log_every=1)
        (tmp_path / str(micro)).mkdir()
        ctx = dataclasses.replace(context, machine=machine, folder=tmp_path / str(micro))
        list(evaluator("linear_probe", augment=augment).run(model, ctx))
        lines = (ctx.folder / "metrics.jsonl").read_text().splitlines()
        logs.append([json.loads(line)["loss"] for line in lines])
    assert logs[0]
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_fine_tuning_saves_the_child_that_it_measured(job: Job) -> None:
    model, context = job
    measured = next(iter(evaluator("finetune").run(model, context)))
    child = load_checkpoint(context.folder / "classifier")
    assert (child.meta.kind, child.meta.parent) == ("classifier", context.subject.hash)
    assert child.meta.classes == context.train_images().classes
    again = load_backbone(child, what="child")
    from cim_bench.data.transforms import EvalTransform
    from cim_bench.engine.inference import run_models

    outputs, labels = run_models({"c": again}, context.val_images(), EvalTransform(32, 0.95), machine=context.machine)
    assert (outputs["c"].argmax(1) == labels).float().mean().item() == pytest.approx(measured.value)


def test_layer_decay_by_hand(job: Job) -> None:
    """Depth 2, decay 0.65: embedding 0.65^3, blocks 0.65^2 and 0.65, fc_norm and head 1 (BEiT's and MAE's rule)."""
    recipe = Finetune(training=dataclasses.replace(SHORT, layer_decay=0.65))
    classifier = make_classifier(job[0], 4, drop_path=0.0, head_std=2e-5)
    scale = {id(p): group["lr_scale"] for group in recipe.groups(classifier) for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in recipe.groups(classifier) for p in group["params"]}
    for name, parameter in classifier.net.named_parameters():
        layer = (
            int(name.split(".")[1]) + 1
            if name.startswith("blocks")
            else 3
            if name.startswith(("fc_norm", "head"))
            else 0
        )
        assert scale[id(parameter)] == pytest.approx(0.65 ** (3 - layer)), name
        spared = parameter.ndim <= 1 or name in ("pos_embed", "cls_token")
        assert decay[id(parameter)] == (0.0 if spared else 0.05), name


def test_fixed_positions_stay_and_the_rest_moves(job: Job) -> None:
    model, context = job
    list(evaluator("finetune").run(model, context))
    child = load_checkpoint(context.folder / "classifier").state
    own = model.net.state_dict()
    assert child["pos_embed"].equal(own["pos_embed"])
    moved = [key for key in own.keys() & child.keys() if not child[key].equal(own[key])]
    assert "patch_embed.proj.weight" in moved
    assert "blocks.0.attn.qkv.weight" in moved


def test_probing_published_values_and_lars_rule() -> None:
    """MAE: lr 0.1 * 16384 / 256 = 6.4; trust ratio for the weight although nothing decays, none for the bias."""
    from cim_bench.evals.linear_probe import lars_groups, make_head

    training = LinearProbe().training
    assert training.base_lr * training.effective_batch / training.lr_batch == pytest.approx(6.4)
    torch.manual_seed(0)
    head = make_head(6, 3)
    weight, bias = head[1].weight, head[1].bias
    from timm.optim import create_optimizer_v2

    optimizer = create_optimizer_v2(lars_groups(head), opt="lars", lr=1.0, momentum=0.9, weight_decay=0.0)
    old = weight.detach().clone()
    weight.grad, bias.grad = torch.randn(3, 6), torch.ones(3)
    optimizer.step()
    trust = 0.001 * old.norm() / weight.grad.norm()
    assert torch.allclose(weight, old - trust * weight.grad, atol=1e-6)
    assert torch.allclose(bias, -torch.ones(3))
