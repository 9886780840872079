"""Public formats of ViTs with BEiT's attention: SimMIM, MFM, BEiT, BEiT v2, data2vec, EVA-01."""

from __future__ import annotations

from functools import partial

from cim_bench.models.formats.catalogue.common import POOLED_HEAD
from cim_bench.models.formats.catalogue.eva import EVA_SWITCH
from cim_bench.models.formats.checks import (
    BLOCK_TABLES,
    FEATURES,
    PLAIN_TRUNK,
    SHARED_TABLE,
    VISUAL_TOKENS,
    predicts,
    trunk,
)
from cim_bench.models.formats.format import Check, Format
from cim_bench.models.formats.normalisation import IMAGENET, Switch

REL_INDEX = r"relative_position_index$"  # a constant, which timm makes itself
ENCODER_KEYS = (r"^encoder\.cls_token$", r"^encoder\.blocks\.0\.attn\.qkv\.weight$", r"^decoder\.")
SIMMIM_CODE = "microsoft/SimMIM (models/simmim.py, models/vision_transformer.py, utils.py)"
MFM_CODE = "Jiahao000/MFM (models/mfm.py, models/vision_transformer.py, utils.py)"
BEIT_CODE = "microsoft/unilm (beit/modeling_pretrain.py, beit/modeling_finetune.py)"
BEIT2_CODE = "microsoft/unilm (beit2/modeling_pretrain.py, beit2/modeling_finetune.py, beit2/run_class_finetuning.py)"
DATA2VEC_CODE = "facebookresearch/data2vec_vision (beit/modeling_cyclical.py, beit/run_class_finetuning.py)"
EVA_CODE = "baaivision/EVA (EVA-01/eva/modeling_pretrain.py, modeling_finetune.py)"
# datasets.py of BEiT, BEiT v2 and data2vec: a mean and std of 0.5 unless the switch is on
SWITCH = Switch("imagenet_default_mean_and_std", {True: "imagenet", False: "inception"})

# q_bias and v_bias without a bias of the keys, layer scale as gamma_1 and gamma_2: timm's beit, not its vit.
_beit = partial(Format, family="beit")
_masked = partial(
    _beit,
    has=(r"^cls_token$", r"^blocks\.0\.attn\.q_bias$", r"^mask_token$", r"^lm_head\.weight$"),
    dropped=(r"^lm_head\.", r"^mask_token$", REL_INDEX),
    normalisation=SWITCH,
    epoch_shift=1,
)
_fine_tuned = partial(
    _beit,
    kind="classifier",
    has=(r"^cls_token$", r"^blocks\.0\.attn\.q_bias$", r"^head\.weight$"),
    dropped=(REL_INDEX,),
    also=POOLED_HEAD,
    checks=(Check(trunk, BLOCK_TABLES),),
    normalisation=SWITCH,
)
_TOKENS = (Check(predicts, VISUAL_TOKENS), Check(trunk, SHARED_TABLE))

BEIT_FORMATS = (
    _beit(
        name="SimMIM pre-trained",
        method="SimMIM",
        has=(*ENCODER_KEYS, r"^encoder\.mask_token$", r"^decoder\.0\.weight$"),
        rename=((r"^encoder\.", ""),),
        dropped=(r"^decoder\.0\.", r"^encoder\.mask_token$", REL_INDEX),
        epoch_shift=1,
        source=SIMMIM_CODE,
    ),
    _fine_tuned(
        name="SimMIM fine-tuned",
        method="SimMIM",
        args=("DATA.MASK_RATIO",),
        normalisation=IMAGENET,
        source=SIMMIM_CODE,
    ),
    _beit(
        name="MFM ViT",
        method="MFM",
        has=ENCODER_KEYS,
        rename=((r"^encoder\.", ""),),
        dropped=(r"^decoder\.", REL_INDEX),
        args=("DATA.FILTER_TYPE=mfm",),  # its code trains super-resolution, deblurring and denoising as baselines
        epoch_shift=1,
        source=MFM_CODE,
    ),
    _fine_tuned(
        name="MFM fine-tuned",
        method="MFM",
        args=("DATA.FILTER_TYPE",),
        checks=(Check(trunk, PLAIN_TRUNK),),
        normalisation=IMAGENET,
        source=MFM_CODE,
    ),
    _masked(
        name="BEiT pre-trained", method="BEiT", args=("discrete_vae_weight_path",), checks=_TOKENS, source=BEIT_CODE
    ),
    _fine_tuned(name="BEiT fine-tuned", method="BEiT", source=BEIT_CODE),
    _masked(
        name="BEiT v2 pre-trained",
        method="BEiT v2",
        has=(r"^cls_token$", r"^blocks\.0\.attn\.q_bias$", r"^mask_token$", r"^lm_head\.weight$", r"^cls_pt_layers\."),
        dropped=(r"^(lm_head|cls_pt_layers|cls_pt_norm|cls_pt_lm_head)\.", r"^mask_token$", REL_INDEX),
        checks=_TOKENS,
        source=BEIT2_CODE,
    ),
    _masked(
        name="BEiT v2 pre-trained, without class layers",
        method="BEiT v2",
        args=("tokenizer_weight",),
        checks=_TOKENS,
        source=BEIT2_CODE,
    ),
    _fine_tuned(name="BEiT v2 fine-tuned", method="BEiT v2", source=BEIT2_CODE),
    _masked(
        name="data2vec pre-trained",
        method="data2vec",
        checks=(Check(predicts, FEATURES), Check(trunk, SHARED_TABLE)),
        source=DATA2VEC_CODE,
    ),
    _fine_tuned(
        name="data2vec fine-tuned",
        method="data2vec",
        dropped=(REL_INDEX, r"^mask_token$"),
        checks=(Check(trunk, SHARED_TABLE),),
        source=DATA2VEC_CODE,
    ),
    _masked(
        name="EVA-01 pre-trained",
        method="EVA-01",
        checks=(Check(predicts, FEATURES), Check(trunk, PLAIN_TRUNK)),
        normalisation=EVA_SWITCH,
        source=EVA_CODE,
    ),
    _fine_tuned(
        name="EVA-01 fine-tuned",
        method="EVA-01",
        checks=(Check(trunk, PLAIN_TRUNK),),
        normalisation=EVA_SWITCH,
        source=EVA_CODE,
    ),
)
