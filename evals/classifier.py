"""A classifier made of a backbone and a fresh head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from cim_bench.models.backbone import Backbone, triple
from cim_bench.models.key_contract import load_exact
from cim_bench.spec import Arch

FINAL_NORM, HEAD = ("norm.", "fc_norm."), ("fc_norm.", "head.", "fc.")  # key prefixes in timm's networks
SHARED_BIAS, BLOCK_BIAS = "rel_pos_bias.relative_position_bias_table", "attn.relative_position_bias_table"


def make_classifier(model: Backbone, num_classes: int, *, drop_path: float, head_std: float | None) -> Backbone:
    """The backbone's weights under a fresh head, with a fresh norm before it in a ViT; the final norm is dropped.

    Raises:
        ValueError: If the backbone's keys are not exactly those of its architecture.
    """
    model_args = {"global_pool": "avg", "drop_path_rate": drop_path}
    classifier = rebuilt(model, model_args, fresh=HEAD, num_classes=num_classes)
    if head_std is not None:
        head: nn.Linear = classifier.net.get_classifier()
        nn.init.trunc_normal_(head.weight, std=head_std)
        nn.init.zeros_(head.bias)
    return classifier


def body(model: Backbone, model_args: Mapping[str, Any], *, added: Sequence[str] = ()) -> Backbone:
    """The backbone's weights without final norm and head, for heads that see raw tokens or maps.

    Args:
        model: Left as it is.
        model_args: Of ``timm.create_model``.
        added: Last parts of keys that `model_args` adds, which stay at their initial values: ``gamma``.

    Raises:
        ValueError: If the backbone's keys are not exactly those of its architecture.
    """
    made = rebuilt(model, model_args, fresh=(*FINAL_NORM, *HEAD), added=added)
    for name in ("norm", "fc_norm", "head_drop", "head"):
        if isinstance(getattr(made.net, name, None), nn.Module):
            setattr(made.net, name, nn.Identity())
    return made


def rebuilt(
    model: Backbone,
    model_args: Mapping[str, Any],
    *,
    fresh: tuple[str, ...],
    added: Sequence[str] = (),
    num_classes: int = 0,
) -> Backbone:
    """A new network with the backbone's weights, and fresh ones where keys begin or end as told."""
    state = {key: value for key, value in model.net.state_dict().items() if not key.startswith(FINAL_NORM)}
    made = Backbone(
        classifier_arch(model.arch),
        mean=triple(model.mean),
        std=triple(model.std),
        num_classes=num_classes,
        model_args=model_args,
    )
    own = made.net.state_dict()
    if SHARED_BIAS in state:
        shared = state.pop(SHARED_BIAS)
        state |= {key: shared + state.get(key, 0) for key in own if key.endswith(BLOCK_BIAS)}
    missing = {key for key in own if key.startswith(fresh) or key.rpartition(".")[2] in added} - state.keys()
    load_exact(made.net, state, what="the backbone", missing=missing)
    return made


def classifier_arch(arch: Arch) -> Arch:
    """The architecture after fine-tuning: where blocks share a relative position bias, each gets a copy of its own.

    Sources: microsoft/SimMIM, utils.py, ``remap_pretrained_keys_vit``; unilm/beit, run_class_finetuning.py.
    """
    pooling = ("global_pool", "use_fc_norm")  # a classifier's own business
    options = {key: value for key, value in arch.options.items() if key not in pooling}
    if options.pop("use_shared_rel_pos_bias", False):
        options["use_rel_pos_bias"] = True
    return replace(arch, options=options)
