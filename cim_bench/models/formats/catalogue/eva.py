"""Public formats of EVA-02, whose blocks have rotary positions and gated MLPs; EVA-01's are among BEiT's."""

from __future__ import annotations

from functools import partial

from cim_bench.models.formats.catalogue.common import POOLED_HEAD
from cim_bench.models.formats.format import Format
from cim_bench.models.formats.normalisation import Switch

# datasets.py of EVA-01 and EVA-02: CLIP's unless the switch is on
EVA_SWITCH = Switch("imagenet_default_mean_and_std", {True: "imagenet", False: "clip"})
EVA2_CODE = "baaivision/EVA (EVA-02/asuka/modeling_pretrain.py, modeling_finetune.py)"
NAMES = (  # with the biases of base and large, whose queries and values are projected apart
    (r"\.mlp\.ffn_ln\.", ".mlp.norm."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
SPLIT = (*NAMES, (r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"))
ROPE = r"rope\.freqs_(cos|sin)$"  # constants, which timm makes itself
MASKED = (r"^mask_token$", r"^lm_head\.weight$", r"^pos_embed$")
PACKED, APART = r"^blocks\.0\.mlp\.(w12|w1)\.weight$", r"^blocks\.0\.attn\.q_proj\.weight$"

# timm's checkpoint_filter_fn makes fc_norm of the final norm, which the pre-training applies to all tokens: not used.
_eva2 = partial(Format, method="EVA-02", family="eva", normalisation=EVA_SWITCH, source=EVA2_CODE)
_masked = partial(
    _eva2, dropped=(r"^lm_head\.", r"^mask_token$", ROPE), options={"global_pool": "token"}, epoch_shift=1
)
_fine_tuned = partial(_eva2, kind="classifier", dropped=(ROPE,), also=POOLED_HEAD)
_HEAD = (r"^fc_norm\.weight$", r"^head\.weight$")

EVA_FORMATS = (
    _masked(
        name="EVA-02 pre-trained, tiny and small",
        has=(*MASKED, PACKED, r"^blocks\.0\.attn\.qkv\.weight$"),
        rename=NAMES,
    ),
    _masked(name="EVA-02 pre-trained, base and large", has=(*MASKED, PACKED, APART), rename=SPLIT),
    _fine_tuned(
        name="EVA-02 fine-tuned, tiny and small",
        has=(*_HEAD, PACKED, r"^blocks\.0\.attn\.qkv\.weight$"),
        rename=NAMES,
    ),
    _fine_tuned(name="EVA-02 fine-tuned, base and large", has=(*_HEAD, PACKED, APART), rename=SPLIT),
)
