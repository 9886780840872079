"""Public formats of ViTs with BEiT's attention: SimMIM, BEiT and BEiT v2."""

from __future__ import annotations

from cim_bench.models.formats.catalogue.common import ENTRIES
from cim_bench.models.formats.format import Format

HALF = (0.5, 0.5, 0.5)
REL_INDEX = r"relative_position_index$"  # a constant, which timm makes itself
SIMMIM_CODE = "microsoft/SimMIM (models/simmim.py, models/vision_transformer.py, utils.py)"
BEIT_CODE = "microsoft/unilm (beit/modeling_pretrain.py, beit/modeling_finetune.py)"
BEIT2_CODE = "microsoft/unilm (beit2/modeling_finetune.py, beit2/run_class_finetuning.py)"

# q_bias and v_bias without a bias of the keys, layer scale as gamma_1 and gamma_2: timm's beit, not its vit.
BEIT_FORMATS = (
    Format(
        name="SimMIM pre-trained",
        method="SimMIM",
        family="beit",
        under=ENTRIES,
        has=(r"^encoder\.cls_token$", r"^encoder\.blocks\.0\.attn\.qkv\.weight$", r"^decoder\.0\.weight$"),
        rename=((r"^encoder\.", ""),),
        dropped=(r"^decoder\.0\.", r"^encoder\.mask_token$", REL_INDEX),
        epoch_shift=1,
        source=SIMMIM_CODE,
    ),
    Format(
        name="SimMIM fine-tuned",
        method="SimMIM",
        kind="classifier",
        family="beit",
        under=ENTRIES,
        has=(r"^cls_token$", r"^blocks\.0\.attn\.q_bias$", r"^head\.weight$"),
        lacks=(r"^lm_head\.",),
        dropped=(REL_INDEX,),
        must_be_named=True,  # BEiT's has the same keys, and another normalisation
        source=SIMMIM_CODE,
    ),
    Format(
        name="BEiT pre-trained",
        method="BEiT",
        family="beit",
        under=ENTRIES,
        has=(r"^cls_token$", r"^blocks\.0\.attn\.q_bias$", r"^mask_token$", r"^lm_head\.weight$"),
        lacks=(r"^cls_pt_layers\.",),
        dropped=(r"^lm_head\.", r"^mask_token$", REL_INDEX),
        mean=HALF,
        std=HALF,
        epoch_shift=1,
        source=BEIT_CODE,
    ),
    Format(
        name="BEiT fine-tuned",
        method="BEiT",
        kind="classifier",
        family="beit",
        under=ENTRIES,
        has=(r"^cls_token$", r"^blocks\.0\.attn\.q_bias$", r"^head\.weight$"),
        lacks=(r"^lm_head\.",),
        dropped=(REL_INDEX,),
        must_be_named=True,
        mean=HALF,
        std=HALF,
        source=BEIT_CODE,
    ),
    Format(
        name="BEiT v2 fine-tuned",
        method="BEiT v2",
        kind="classifier",
        family="beit",
        under=ENTRIES,
        has=(r"^cls_token$", r"^blocks\.0\.attn\.q_bias$", r"^head\.weight$"),
        lacks=(r"^lm_head\.",),
        dropped=(REL_INDEX,),
        must_be_named=True,  # the keys of BEiT's, trained with --imagenet_default_mean_and_std
        source=BEIT2_CODE,
    ),
)
