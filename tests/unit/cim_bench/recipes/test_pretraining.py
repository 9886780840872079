"""Pre-training recipes hold the published values, written out here a second time from their sources."""

from __future__ import annotations

import pytest

from cim_bench import registry
from cim_bench.benchmark import Pretraining
from cim_bench.registry import load_recipe

Values = tuple[str, float, int, int, float, tuple[float, float], float | None, tuple[float, ...]]

# Method, peak rate, batch, epochs, warm-up, betas, clipping, milestones: CIM's script, MAE's PRETRAIN.md, SimMIM's
# configs/vit_base__800ep and config.py; ResNets: ours, with MFM's warm-up and clipping.
CIM_VIT: Values = ("CIM", 2.4e-3, 4096, 300, 40, (0.9, 0.95), 1.0, ())
SIMMIM_VIT: Values = ("SimMIM", 4e-4, 2048, 800, 10, (0.9, 0.999), 5.0, (700.0,))
PUBLISHED: dict[str, Values] = {
    "cim_vit_small": CIM_VIT,
    "cim_vit_base": CIM_VIT,
    "cim_resnet50": ("CIM", 1.2e-3, 2048, 300, 20, (0.9, 0.95), 3.0, ()),
    "mae_vit_base": ("MAE", 2.4e-3, 4096, 800, 40, (0.9, 0.95), None, ()),
    "mae_vit_small": ("MAE", 2.4e-3, 4096, 300, 40, (0.9, 0.95), None, ()),
    "simmim_vit_base": SIMMIM_VIT,
    "simmim_vit_base_plain": SIMMIM_VIT,
    "simmim_vit_small_plain": SIMMIM_VIT,
    "simmim_resnet50": ("SimMIM", 1.2e-3, 2048, 300, 20, (0.9, 0.999), 3.0, ()),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    recipe: Pretraining = load_recipe(name)
    t = recipe.training
    peak = t.base_lr * t.effective_batch / t.lr_batch
    schedule = (t.effective_batch, t.epochs, t.warmup_epochs, t.betas, t.clip_grad, t.milestones)
    assert (recipe.pretext.method, pytest.approx(peak), *schedule) == PUBLISHED[name]
    assert (t.optimizer, t.weight_decay, t.min_lr, t.repeats, t.precision) == ("adamw", 0.05, 0.0, 1, "bf16")
    assert recipe.arch.image_size == 224
    assert recipe.export == ("ema" if name == "cim_resnet50" else "online")
    size = "small" if "small" in name else "base"
    network = "beit_base_patch16_224" if name == "simmim_vit_base" else f"vit_{size}_patch16_224"
    assert recipe.arch.name == ("resnet50" if "resnet" in name else network)


def test_every_pretraining_recipe_is_held() -> None:
    made = {name: load_recipe(name) for name in registry.choices("recipes")}
    assert {name for name, recipe in made.items() if isinstance(recipe, Pretraining)} == PUBLISHED.keys()
