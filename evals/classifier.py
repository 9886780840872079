"""A classifier made of a backbone and a fresh head."""

from __future__ import annotations

from dataclasses import replace

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
    state = {key: value for key, value in model.net.state_dict().items() if not key.startswith(FINAL_NORM)}
    classifier = Backbone(
        classifier_arch(model.arch),
        mean=triple(model.mean),
        std=triple(model.std),
        num_classes=num_classes,
        model_args={"global_pool": "avg", "drop_path_rate": drop_path},
    )
    own = classifier.net.state_dict()
    if SHARED_BIAS in state:
        shared = state.pop(SHARED_BIAS)
        state |= {key: shared + state.get(key, 0) for key in own if key.endswith(BLOCK_BIAS)}
    fresh = {key for key in own if key.startswith(HEAD)}
    load_exact(classifier.net, state, what="the backbone", missing=fresh)
    if head_std is not None:
        head: nn.Linear = classifier.net.get_classifier()
        nn.init.trunc_normal_(head.weight, std=head_std)
        nn.init.zeros_(head.bias)
    return classifier


def classifier_arch(arch: Arch) -> Arch:
    """The architecture after fine-tuning: where blocks share a relative position bias, each gets a copy of its own.

    Sources: microsoft/SimMIM, utils.py, ``remap_pretrained_keys_vit``; unilm/beit, run_class_finetuning.py.
    """
    pooling = ("global_pool", "use_fc_norm")  # a classifier's own business
    options = {key: value for key, value in arch.options.items() if key not in pooling}
    if options.pop("use_shared_rel_pos_bias", False):
        options["use_rel_pos_bias"] = True
    return replace(arch, options=options)
