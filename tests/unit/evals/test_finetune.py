"""Fine-tuning of three families end to end on photographs; losses by hand; published recipes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cim_bench.benchmark import RandomInit
from cim_bench.common.seeds import seed_all
from cim_bench.contracts.context import Context
from cim_bench.data.transforms import EvalTransform, FinetuneTransform
from cim_bench.engine.inference import run_models
from cim_bench.evals.classifier import make_classifier
from cim_bench.evals.finetune import Finetune, FinetuneModel, mix
from cim_bench.evals.knn import KNN
from cim_bench.evals.linear_probe import LinearProbe
from cim_bench.jobs.identity import protocol_info
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.models.checkpoint import Checkpoint, load_checkpoint
from cim_bench.published_protocols import RSB
from cim_bench.registry import load_recipe
from cim_bench.spec import Arch, Data, Machine, Training

SMALL = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
BEIT = {**SMALL, "global_pool": "token", "use_rel_pos_bias": 0, "use_shared_rel_pos_bias": 1}
RESNET = Arch(name="resnet10t", image_size=64)
ARCHES = {
    "vit": Arch(name="vit_tiny_patch16_224", image_size=32, options=SMALL),
    "beit": Arch(name="beit_base_patch16_224", image_size=32, options=BEIT),
    "resnet": RESNET,
}
SHORT = Training(epochs=2, effective_batch=16, base_lr=1e-2, layer_decay=0.65)
LAMB = replace(SHORT, optimizer="lamb", lr_batch=16, layer_decay=None, repeats=3)


def checkpoint_of(arch: Arch, **changes: Any) -> Checkpoint:
    made = random_checkpoint(RandomInit(arch=arch), seed=0)
    return Checkpoint(state=made.state, meta=replace(made.meta, **changes))


def context_of(checkpoint: Checkpoint, data: Data, folder: Path) -> Context:
    machine = Machine(device="cpu", workers=0, micro_batch=16)
    return Context(data=data, machine=machine, seed=0, folder=folder, subject=checkpoint.meta)


@pytest.mark.parametrize("family", list(ARCHES))
def test_the_saved_child_predicts_what_was_measured(family: str, small_photos: Data, tmp_path: Path) -> None:
    """From a backbone with BEiT's normalisation to a loaded child, in a process of its own settings."""
    checkpoint = checkpoint_of(ARCHES[family], mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    context = context_of(checkpoint, small_photos, tmp_path)
    backbone = load_backbone(checkpoint, what="random")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    recipe = Finetune(training=SHORT if family != "resnet" else LAMB, drop_path=0.2)
    measured = next(iter(recipe.run(backbone, context)))
    assert all(value.equal(before[key]) for key, value in backbone.state_dict().items())
    child = load_checkpoint(tmp_path / "classifier")
    assert (child.meta.kind, child.meta.parent) == ("classifier", checkpoint.meta.hash)
    assert child.meta.mean == (0.5, 0.5, 0.5)
    loaded = load_backbone(child, what="child")
    outputs, labels = run_models(
        {"c": loaded}, context.val_images(), EvalTransform(loaded.arch.image_size, 0.95), machine=context.machine
    )
    assert (outputs["c"].argmax(1) == labels).float().mean().item() == pytest.approx(measured.value)
    assert outputs["c"].shape[1] == 4


@pytest.mark.parametrize("own", [0, 1])
def test_shared_bias_becomes_one_table_for_each_block(own: int) -> None:
    """BEiT's and SimMIM's fine-tuning: the same function at first, a table each from then on; the arch says so."""
    arch = replace(ARCHES["beit"], options={**BEIT, "use_rel_pos_bias": own})
    backbone = load_backbone(checkpoint_of(arch), what="random")
    for name, table in backbone.net.named_parameters():
        if name.endswith("relative_position_bias_table"):
            torch.nn.init.normal_(table)
    classifier = make_classifier(backbone, 4, drop_path=0.0, head_std=2e-5).eval()
    tables = [block.attn.relative_position_bias_table for block in classifier.net.blocks]
    shared = backbone.net.rel_pos_bias.relative_position_bias_table
    assert all(table.equal(shared) for table in tables) is not bool(own)
    assert len({table.data_ptr() for table in tables}) == 2
    assert classifier.net.rel_pos_bias is None
    assert "use_shared_rel_pos_bias" not in classifier.arch.options
    assert classifier.arch.options["use_rel_pos_bias"]
    images = torch.rand(2, 3, 32, 32)
    patches = classifier.net.forward_features(classifier.normalize(images))
    expected = backbone.net.norm(patches)
    assert torch.allclose(backbone.net.forward_features(backbone.normalize(images)), expected, atol=1e-5)


@pytest.mark.parametrize("family", list(ARCHES))
def test_only_the_head_is_fresh(family: str) -> None:
    backbone = load_backbone(checkpoint_of(ARCHES[family]), what="random")
    classifier = make_classifier(backbone, 4, drop_path=0.0, head_std=0.5)
    source, own = backbone.net.state_dict(), classifier.net.state_dict()
    fresh = {"fc.weight", "fc.bias"} if family == "resnet" else {f"{p}.{k}" for p in ("fc_norm", "head") for k in WB}
    if family == "beit":
        fresh |= {f"blocks.{i}.attn.relative_position_bias_table" for i in range(2)}
    assert own.keys() - source.keys() == fresh
    assert all(own[key].equal(source[key]) for key in own.keys() & source.keys())
    assert classifier.net.get_classifier().weight.std().item() == pytest.approx(0.5, rel=0.2)


WB = ("weight", "bias")


def test_layer_decay_of_a_resnet_and_a_beit_by_hand() -> None:
    """ResNet-10-T: stem, four blocks, head: 0.5^5 to 1. BEiT of depth 2: a block's table moves with its block."""
    for family, depth in (("resnet", 5), ("beit", 3)):
        classifier = make_classifier(
            load_backbone(checkpoint_of(ARCHES[family]), what="r"), 4, drop_path=0.0, head_std=None
        )
        recipe = Finetune(training=replace(SHORT, layer_decay=0.5))
        groups = recipe.groups(classifier)
        scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        for name, parameter in classifier.net.named_parameters():
            layer = 0
            if name.startswith(("layer", "blocks")):
                layer = int(name[5]) if family == "resnet" else int(name.split(".")[1]) + 1
            elif name.startswith(("fc", "head")):
                layer = depth
            assert scale[id(parameter)] == pytest.approx(0.5 ** (depth - layer)), name
            spared = parameter.ndim <= 1 or name in ("pos_embed", "cls_token")
            assert decay[id(parameter)] == (0.0 if spared else 0.05), name


def test_binary_cross_entropy_by_hand() -> None:
    """Half an image of class 0 and half of class 2: both count in full above the threshold; mean over classes."""
    logits, mixed = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[0.75, 0.0, 0.25]])
    classifier = make_classifier(load_backbone(checkpoint_of(RESNET), what="r"), 3, drop_path=0.0, head_std=None)
    for threshold, target in ((0.2, [1.0, 0.0, 1.0]), (0.3, [1.0, 0.0, 0.0]), (None, [0.75, 0.0, 0.25])):
        recipe = Finetune(loss="bce", bce_threshold=threshold, smoothing=0.0, mixup=0.1)
        terms = [
            -t * math.log(1 / (1 + math.exp(-x))) - (1 - t) * math.log(1 - 1 / (1 + math.exp(-x)))
            for x, t in zip(logits[0].tolist(), target, strict=True)
        ]
        loss = FinetuneModel(classifier, recipe, torch.full((3,), 1 / 3)).criterion(logits, mixed)
        assert loss.item() == pytest.approx(sum(terms) / 3, rel=1e-5)
    plain = Finetune(loss="bce", smoothing=0.0, mixup=0.0, cutmix=0.0)
    whole = FinetuneModel(classifier, plain, torch.full((3,), 1 / 3)).criterion
    expected = F.binary_cross_entropy_with_logits(logits, torch.tensor([[0.0, 0.0, 1.0]]))
    assert whole(logits, torch.tensor([2])).item() == pytest.approx(expected.item())


def test_training_resolution(small_photos: Data, tmp_path: Path) -> None:
    """A ResNet trains on smaller crops than it is tested on; a ViT cannot."""
    backbone = load_backbone(checkpoint_of(RESNET), what="r")
    recipe = Finetune(train_size=32, training=replace(SHORT, epochs=1, layer_decay=None))
    crop: FinetuneTransform = recipe.transform(backbone)
    assert crop.augment.transforms[0].size == (32, 32)
    context = context_of(checkpoint_of(RESNET), small_photos, tmp_path)
    assert next(iter(recipe.run(backbone, context))).n == 24
    with pytest.raises(ValueError, match="train_size 16 does not fit vit_tiny_patch16_224"):
        Finetune(train_size=16).transform(load_backbone(checkpoint_of(ARCHES["vit"]), what="v"))
    with pytest.raises(ValueError, match=r"bce_threshold 0\.2 has no effect on loss ce"):
        Finetune(bce_threshold=0.2)


def test_frozen_positions_only_where_there_are_any(small_photos: Data, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(ARCHES["vit"])
    context = context_of(checkpoint, small_photos, tmp_path)
    next(iter(Finetune(training=SHORT).run(load_backbone(checkpoint, what="v"), context)))
    child = load_checkpoint(tmp_path / "classifier").state
    assert child["pos_embed"].equal(checkpoint.state["pos_embed"])
    assert not child["cls_token"].equal(checkpoint.state["cls_token"])


def test_erasing_noise_is_normal_in_the_models_own_space() -> None:
    """With BEiT's mean and deviation of 0.5, noise of N(0, 1) there is N(0.5, 0.5) for a backbone that takes [0, 1]."""
    transform = FinetuneTransform(
        64, auto_augment="", reprob=1.0, scale=(1.0, 1.0), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    seed_all(0)
    black = Image.new("RGB", (64, 64))
    noise = torch.cat([(image := transform(black))[image != 0] for _ in range(20)])
    assert len(noise) > 10_000
    assert noise.mean().item() == pytest.approx(0.5, abs=0.02)
    assert noise.std().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_image_without_a_partner_is_not_mixed(count: int) -> None:
    """Soft targets by hand: 0.9 + 0.1 / 4 for the own class; the loss is cross entropy over all images of the pass."""
    classifier = make_classifier(load_backbone(checkpoint_of(ARCHES["vit"]), what="v"), 4, drop_path=0.0, head_std=0.5)
    model = FinetuneModel(classifier.eval(), Finetune(), torch.full((4,), 0.25))
    images, labels = torch.rand(count, 3, 32, 32), torch.tensor([3, 0, 1])[:count]
    seed_all(0)
    mixed, targets = mix(model.mixup, images, labels)
    assert mixed.shape == images.shape
    assert targets.sum(dim=1).tolist() == pytest.approx([1.0] * count)
    if count % 2:
        assert mixed[-1].equal(images[-1])
        own = [0.925 if c == labels[-1] else 0.025 for c in range(4)]
        assert targets[-1].tolist() == pytest.approx(own)
    seed_all(0)
    loss = model({"image": images, "label": labels})["loss"]
    expected = -(targets * classifier(mixed).log_softmax(dim=1)).sum(dim=1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


# Peak rate, batch, epochs, warm-up, lowest rate, layer decay, decay, clipping, drop path, crop of the evaluation, and
# whether the cosine starts after warm-up: CIM's script, MAE's FINETUNE.md, SimMIM's config.py and scheduler, BEiT's
# get_started_for_image_classification.md, DeiT's main.py, RSB's table 2.
PUBLISHED: dict[str, tuple[float | bool | None, ...]] = {
    "finetune_cim_vit_base": (9.6e-3, 2048, 100, 5, 1e-6, 0.8, 0.05, None, 0.1, 0.95, True),
    "finetune_cim_vit_small": (9.6e-3, 2048, 200, 5, 1e-6, 0.8, 0.05, None, 0.1, 0.95, True),
    "finetune_mae_vit_base": (2e-3, 1024, 100, 5, 1e-6, 0.65, 0.05, None, 0.1, 0.875, True),
    "finetune_mae_vit_small": (2e-3, 1024, 200, 5, 1e-6, 0.65, 0.05, None, 0.1, 0.875, True),
    "finetune_simmim_vit_base": (5e-3, 2048, 100, 20, 1e-6, 0.65, 0.05, 5.0, 0.1, 0.875, False),
    "finetune_beit_vit_base": (4e-3, 1024, 100, 20, 1e-6, 0.65, 0.05, None, 0.1, 0.875, True),
    "finetune_scratch_vit_base": (1e-3, 1024, 300, 5, 1e-5, None, 0.05, None, 0.1, 0.875, False),
    "finetune_rsb_a3": (8e-3, 2048, 100, 5, 1e-6, None, 0.02, None, 0.0, 0.95, False),
    "finetune_rsb_a2": (5e-3, 2048, 300, 5, 1e-6, None, 0.02, None, 0.05, 0.95, False),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    recipe: Finetune = load_recipe(name)
    t = recipe.training
    peak = t.base_lr * t.effective_batch / t.lr_batch
    schedule = (t.effective_batch, t.epochs, t.warmup_epochs, t.min_lr, t.layer_decay, t.weight_decay, t.clip_grad)
    assert (pytest.approx(peak), *schedule, recipe.drop_path, recipe.crop_pct, t.warmup_prefix) == PUBLISHED[name]
    is_rsb = "rsb" in name
    augmentation = (recipe.mixup, recipe.cutmix, recipe.smoothing, recipe.reprob)
    assert augmentation == ((0.1, 1.0, 0.0, 0.0) if is_rsb else (0.8, 1.0, 0.1, 0.25))
    assert (recipe.loss, recipe.bce_threshold) == (("bce", 0.2) if is_rsb else ("ce", None))
    assert (t.optimizer, t.betas) == ("lamb" if is_rsb else "adamw", (0.9, 0.999))
    assert t.repeats == (3 if name in ("finetune_rsb_a2", "finetune_scratch_vit_base") else 1)
    magnitude = {"finetune_rsb_a3": 6, "finetune_rsb_a2": 7}.get(name, 9)
    assert recipe.auto_augment == f"rand-m{magnitude}-mstd0.5-inc1"
    assert recipe.train_size == (160 if name == "finetune_rsb_a3" else None)
    assert recipe.head_std == (None if is_rsb or "scratch" in name else 2e-5)


@pytest.mark.parametrize("number", [100.0, 300.0])
def test_the_reports_know_rsbs_knobs(number: float) -> None:
    recipe = load_recipe("finetune_rsb_a3" if number == 100 else "finetune_rsb_a2")
    assert dict(RSB[number]) == protocol_info(recipe).passed


@pytest.mark.parametrize("evaluator", ["knn", "linear_probe"])
def test_resnets_are_probed_on_the_pooled_feature(evaluator: str, small_photos: Data, tmp_path: Path) -> None:
    """512 channels; running statistics stay as the checkpoint has them; a class token is refused by name."""
    checkpoint = checkpoint_of(RESNET)
    context, model = context_of(checkpoint, small_photos, tmp_path), load_backbone(checkpoint, what="r")
    lars = Training(epochs=2, effective_batch=16, base_lr=0.5, optimizer="lars", weight_decay=0.0)
    run: Any = KNN(k=(1, 5), feature="pool") if evaluator == "knn" else LinearProbe(training=lars, feature="pool")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert all(m.n == 24 for m in run.run(model, context))
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    assert model.feature(torch.rand(2, 3, 64, 64), "pool").shape == (2, 512)
    with pytest.raises(ValueError, match="resnet10t has no 'cls' feature"):
        list(replace(run, feature="cls").run(model, context))


def test_a_foreign_key_is_refused() -> None:
    backbone = Backbone(ARCHES["vit"])
    backbone.net.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"unexpected extra\.bias, extra\.weight"):
        make_classifier(backbone, 4, drop_path=0.0, head_std=None)
