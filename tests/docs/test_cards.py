"""The values that cards of protocols and pretexts name are those of the code: versions, defaults, published recipes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cim_bench import registry
from cim_bench.records.facets import as_255
from tests.docs.rooms import ROOT


def of(name: str) -> Any:
    """An evaluator or pretext at its defaults, or a recipe."""
    for group in ("evaluators", "pretexts"):
        if name in registry.choices(group):
            return registry.load(registry.target(group, name))()
    return registry.load_recipe(name)


def short(value: float) -> str:
    """As the cards write small numbers: 1.2e-3, 0.05."""
    return f"{value:g}" if value >= 0.01 else re.sub(r"e-0?", "e-", re.sub(r"\.?0*e", "e", f"{value:.2e}"))


def rate(training: Any) -> str:
    """The peak of a schedule, from its base."""
    return short(training.base_lr * training.effective_batch / training.lr_batch)


def row(title: str, *cells: str) -> str:
    return f"| {title} | {' | '.join(cells)} |"


def knn() -> list[str]:
    own = of("knn")
    return [
        f"`crop_pct` ({own.crop_pct}:",
        f", T {own.temperature} |",
        f"`{own.feature}` after the final norm (default)",
        f"| k | {', '.join(map(str, own.k))}:",
    ]


def linear_probe() -> list[str]:
    own, training = of("linear_probe"), of("linear_probe").training
    return [
        f"{training.epochs} epochs, {training.warmup_epochs:g} of warm-up",
        f"base lr {training.base_lr} per {training.lr_batch}, batch {training.effective_batch} (lr {rate(training)})",
        f"LARS, momentum {training.momentum}",
        f"`{own.feature}` after the final norm (default)",
        f"resize {224 / own.crop_pct:g} bicubic, centre crop 224",
    ]


def adversarial() -> list[str]:
    own = of("adversarial")
    return [
        f"`crop_pct` ({own.crop_pct})",
        f"| FGSM | one step of eps {as_255(own.eps[0])},",
        f"eps {as_255(own.eps[0])}, alpha {as_255(own.alpha)}, {own.steps} steps",
    ]


def corruptions() -> list[str]:
    own = of("corruptions")
    return [f"a stratified subset ({own.subset:,} images", f"not {own.size}x{own.size} is"]


def shifts() -> list[str]:
    return [f"`crop_pct` ({of('shifts').crop_pct}:"]


def robustbench() -> list[str]:
    own = of("robustbench")
    return [f"eps {as_255(own.eps)};", f"`crop_pct` ({own.crop_pct})", f"list of {own.n_examples:,}"]


def finetune() -> list[str]:
    tuned = {name: of(f"finetune_{name}_vit_base") for name in ("cim", "mae", "simmim", "beit")}
    cim, mae, simmim, beit = (recipe.training for recipe in tuned.values())
    own = tuned["cim"]
    return [
        row("epochs", f"ViT-B {cim.epochs}, ViT-S {of('finetune_cim_vit_small').training.epochs}",
            *(f"ViT-B {training.epochs}" for training in (mae, simmim, beit))),
        *(f"{short(t.base_lr)} per {t.lr_batch} × batch {t.effective_batch} = {rate(t)}" for t in (cim, mae, simmim)),
        f"{rate(beit)} at batch {beit.effective_batch}",
        row("layer decay", *(f"{training.layer_decay}" for training in (cim, mae, simmim, beit))),
        row("warm-up, minimum", f"{cim.warmup_epochs:g} epochs, {short(cim.min_lr)}, per step", "same",
            *(f"{training.warmup_epochs:g} epochs, {short(training.min_lr)}" for training in (simmim, beit))),
        row("drop path", *(f"{recipe.drop_path}" for recipe in tuned.values())),
        f"gradient norm at most {simmim.clip_grad:g}",
        f"{own.auto_augment}, erasing {own.reprob} (pixel), mixup {own.mixup}, cutmix {own.cutmix}, "
        f"smoothing {own.smoothing}",
        f"centre crop of {100 * own.crop_pct:g} % | centre crop of {100 * tuned['mae'].crop_pct:g} % (224 of 256)",
    ]  # fmt: skip


def rsb() -> list[str]:
    a2, a3 = of("finetune_rsb_a2"), of("finetune_rsb_a3")
    return [
        row("epochs", str(a3.training.epochs), str(a2.training.epochs)),
        f"**{a3.train_size}**, 224 (`train_size`) | 224, 224 |",
        f"weight decay {a3.training.weight_decay} (none on biases and norms), lr {rate(a3.training)} at batch "
        f"{a3.training.effective_batch} | same, lr {rate(a2.training)} |",
        f"{a3.auto_augment}, mixup {a3.mixup}, cutmix {a3.cutmix}, no erasing, no smoothing | "
        f"{a2.auto_augment}, mixup {a2.mixup}, cutmix {a2.cutmix} |",
        f"each image {a2.training.repeats} times in an epoch",
        row("drop path", f"{a3.drop_path:g}", f"{a2.drop_path:g}"),
        f"`bce_threshold` {a3.bce_threshold}",
        f"centre crop of {100 * a3.crop_pct:g} % of the short side",
    ]


def cim() -> list[str]:
    own = of("cim")
    return [
        f"the crop at {own.context_size} pixels",
        f"{own.num_exemplars} of {own.exemplar_size} pixels: area {own.region_scale[0]} to {own.region_scale[1]} of "
        f"the crop, aspect 1/3 to {own.region_ratio[1]:g}, "
        f"whole degrees from -{own.max_degrees} to {own.max_degrees - 1}",
        f"area ({own.base_scale[0]}, {own.base_scale[1]:g})",
        f"linear map to {own.decoder_dim};",
        f"block of {own.decoder_heads} heads",
        f"momentum from {own.ema_momentum[0]} to {own.ema_momentum[1]:g}",
        f"standard deviation of {own.map_std:g} (`map_std`)",
    ]


def mae() -> list[str]:
    own = of("mae")
    return [
        f"| mask | {own.mask_ratio} of the patches",
        f"area ({own.crop_scale[0]}, {own.crop_scale[1]:g})",
        f"linear layer to {own.decoder_dim},",
        f"{own.decoder_depth} blocks of {own.decoder_heads} heads",
    ]


def simmim() -> list[str]:
    own = of("simmim")
    return [
        f"squares of {own.mask_patch} pixels, {own.mask_ratio} of them",
        f"area ({own.crop_scale[0]}, {own.crop_scale[1]:g})",
        f"| stochastic depth | {own.drop_path} in the last block",
    ]


def segmentation_knn() -> list[str]:
    own = of("segmentation_knn")
    rest = round(100 * (1 - own.tuning))
    return [
        f"squashed to {own.size} × {own.size} whatever their shape",
        f"k of {', '.join(map(str, own.k))} and distance of {' and '.join(own.distances).replace(' and ', ', ')}",
        f"the highest mIoU on {round(100 * own.tuning)} % of the training images",
        f"over the patches of the {rest} % below",
        f"{own.size} × {own.size}, with a bank of all training images",
    ]


def segmentation_linear() -> list[str]:
    own = of("segmentation_linear")
    training, test = own.training, own.test
    return [
        f"{training.iterations:,} steps of {training.effective_batch} images; AdamW (0.9, 0.999), rate "
        f"{short(training.lr)}, weight decay {short(training.weight_decay)} on all of the head; linear warm-up over "
        f"{training.warmup_iterations:,} steps, then a line to 0",
        f"short side {test.scale[1]} times {own.ratios[0]} to {own.ratios[1]:.0f}",
        f"crop {test.crop} in which",
        f"windows of {test.crop}, {test.strides[0]} pixels apart",
    ]


def segmentation_upernet() -> list[str]:
    own, mmseg, beit = of("segmentation_upernet"), of("segmentation_mae_mmseg"), of("segmentation_beit")
    training, test = own.training, own.test
    return [
        f"{training.iterations:,} steps of {training.effective_batch} images; AdamW (0.9, 0.999), weight decay "
        f"{training.weight_decay}; linear warm-up over {training.warmup_iterations:,} steps",
        f"{short(training.lr)} for heads, times {training.layer_decay} a layer below",
        f"blocks {', '.join(map(str, own.blocks[:3]))} and {own.blocks[3]}",
        f"head | UPerNet of {own.channels} channels",
        f"weight {own.auxiliary_weight}; dropout of whole channels 0.1",
        f"windows of {test.crop}, {test.strides[0]} pixels apart",
        f"windows {mmseg.test.strides[0]} pixels apart",
        f"rate {short(beit.training.lr)};",
        f"`layer_scale` {mmseg.layer_scale}",
        f"(MAE: {mmseg.published_curve[0]} % after 16,000 steps)",
    ]


PROTOCOLS = [(f"protocols/{card.__name__}.md", card) for card in (knn, linear_probe, adversarial, corruptions, shifts)]
PROTOCOLS += [("protocols/robustbench.md", robustbench), ("protocols/finetune.md", finetune)]
PROTOCOLS += [("protocols/segmentation_upernet.md", segmentation_upernet)]
PROTOCOLS += [("protocols/segmentation_knn.md", segmentation_knn)]
PROTOCOLS += [("protocols/segmentation_linear.md", segmentation_linear)]
CARDS = [*PROTOCOLS, ("protocols/finetune.md", rsb), *((f"pretexts/{c.__name__}.md", c) for c in (cim, mae, simmim))]


@pytest.mark.parametrize(("page", "values"), CARDS)
def test_a_card_names_the_values_of_the_code(page: str, values: Any) -> None:
    text = " ".join((ROOT / "docs" / page).read_text().split())
    assert [value for value in values() if " ".join(value.split()) not in text] == []


def test_every_card_is_of_its_version_and_every_protocol_and_pretext_has_one() -> None:
    for group, folder in (("evaluators", "protocols"), ("pretexts", "pretexts")):
        for name in registry.GROUPS[group]:
            title = (ROOT / "docs" / folder / f"{name}.md").read_text().partition("\n")[0]
            version = f", version {of(name).version}" if group == "evaluators" else ": "
            assert title.startswith(f"# {name}{version}"), title


def test_recipes_that_pages_name_exist() -> None:
    names = re.compile(r"`((?:finetune|cim|mae|simmim)_\w*(?:vit|resnet|rsb)\w*|imagenet_(?:[arv]|v2|sketch|real))`")
    for page in (ROOT / "docs").rglob("*.md"):
        named = [name for name in names.findall(page.read_text()) if name != "cim_resnet"]
        assert [name for name in named if name not in registry.choices("recipes")] == [], page
