"""Fine-tuning recipes keep the settings of version 0.1.0, but for warm-up, now a number as it is declared."""

from __future__ import annotations

from typing import Any

import pytest

from cim_bench.common.hashing import stable_hash
from cim_bench.evals.finetune import Finetune, cim_finetune_training
from cim_bench.jobs.identity import protocol_info
from cim_bench.registry import load_recipe

# Hashes of the settings, and of those that differ from the defaults, as version 0.1.0 computed them.
HASHES = {
    "finetune_beit_vit_base": (
        "b8dd379cfd7cf68be597955a1084e6ea1330cf62a04b8ed7e2f4a78521427346",
        "b05806a7dce9b546086d4f1d24d3b99aad1f344bc5b15fe5e0e83f99193ab4cf",
    ),
    "finetune_cim_vit_base": (
        "9e028e3fbeaf14741daec5a77ecef3063e7a20f80d6864431cff163460f7fd17",
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    ),
    "finetune_cim_vit_small": (
        "e54edeb4723bc5940c73a1003e5dc9f896e78c8a554d3127772db99f48050705",
        "2d7f541f63ab326f3cb9f3d0d4157efe7bfeb9bf79dcb1edc77e3601fbf0af50",
    ),
    "finetune_mae_vit_base": (
        "bf49330d516d751dcd6c163acca08f3576636b6b9f6ad07ef2bc196308ffab38",
        "edfc7f699b1d36b85d48cbe209c9a3600d3e92b5247dbd0e68dee6b65f941abd",
    ),
    "finetune_mae_vit_small": (
        "1a3a84e334421b7333d54b758c4b9804b6a7e51ba3eae532334a6e2561729cdd",
        "acbdd7ef057c137e3ee67828e2cd26cba06741188a9a44f327a65f3917e2e428",
    ),
    "finetune_rsb_a2": (
        "2cd70f2e8c6b5848d1facd96d1fedc6ab061abe841d4a036cd1caedbd0364a14",
        "57681dfc5156163482066c12d3b61a9f3976bd402532bf4ad0f9e68af8bc988d",
    ),
    "finetune_rsb_a3": (
        "c2ca143006f03bb75fab0794f9bf8cbf776cd79dcc874b4ae9ca7d137e6f6650",
        "17a652620ed029f59271a19a6946f2822cc554170aba714f167d635f328d11b4",
    ),
    "finetune_scratch_vit_base": (
        "eac4192dcbe3d660c29335afcb0362b4daab6623f759fac2d74809b952373f63",
        "dd44cf78427122901cfa80a0bed9a6b1a83c87053b584e94d6101798ece3e28d",
    ),
    "finetune_simmim_vit_base": (
        "ad1fb134c96a348da4c7a83e8404a2f5864f6945256cb8acfc1d54d39df859b5",
        "751b9dcfce810c20ac2aec1898ff905bbb8c6583637db6346567119df1689d38",
    ),
}


def with_whole_warmup(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as version 0.1.0 had them, which hashed 5 epochs of warm-up as it was typed and not as 5.0."""
    if "training" in settings:
        return {**settings, "training": with_whole_warmup(settings["training"])}
    return {
        name: int(value) if name.endswith("warmup_epochs") and value == int(value) else value
        for name, value in settings.items()
    }


@pytest.mark.parametrize("name", HASHES)
def test_settings_hash_as_in_version_0_1_0_but_for_warmup(name: str) -> None:
    recipe: Finetune = load_recipe(name)
    info = protocol_info(recipe)
    assert (info.evaluator, info.version) == ("finetune", 2)
    assert isinstance(info.settings["training"]["warmup_epochs"], float)
    hashes = (stable_hash(with_whole_warmup(info.settings)), stable_hash(with_whole_warmup(info.passed)))
    assert hashes == HASHES[name]


def test_a_whole_number_hashes_as_the_number_that_it_is_declared_to_be() -> None:
    typed, exact = (Finetune(mixup=one, training=cim_finetune_training(epochs=50)) for one in (1, 1.0))
    assert stable_hash(protocol_info(typed).settings) == stable_hash(protocol_info(exact).settings)
    assert stable_hash(protocol_info(typed).passed) == stable_hash(protocol_info(exact).passed)
