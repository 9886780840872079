"""Public formats of plain ViTs: CIM, MAE, MoCo v3, I-JEPA and timm's own."""

from __future__ import annotations

from functools import partial

from cim_bench.models.formats.catalogue.common import (
    DDP_PREFIX,
    FINAL_NORM,
    HEAD,
    MOCO3_CODE,
    POOLED_HEAD,
    TIMM_CODE,
    VIT_KEYS,
)
from cim_bench.models.formats.checks import NO_SINCOS, SINCOS, SINCOS_MOCO3, patch_projection, positions
from cim_bench.models.formats.format import Format
from cim_bench.models.formats.normalisation import OfTimm

POOLED = (r"^fc_norm\.weight$", r"^head\.weight$")
TIMM_EXTRAS = (r"norm_pre\.(weight|bias)", r"blocks\.\d+\.(ls[12]\.gamma|attn\.[qk]_norm\.(weight|bias))")
CIM_CODE = "weivision/Correlational-Image-Modeling (models/cim.py, models/vit.py, tools/main_finetune.py)"
MAE_CODE = "facebookresearch/mae (models_mae.py, models_vit.py, util/misc.py)"
JEPA_CODE = "facebookresearch/ijepa (src/models/vision_transformer.py, src/train.py, src/transforms.py)"


# Each has LayerNorm eps 1e-6, exact GELU, a qkv bias and a final norm, as timm's; exceptions stand beside a format.
_vit = partial(Format, family="vit")
_encoder = partial(_vit, has=(*VIT_KEYS, FINAL_NORM))
_pooled = partial(_vit, kind="classifier", has=(*VIT_KEYS, *POOLED), also=POOLED_HEAD)
_cim = partial(_vit, method="CIM", epoch_shift=1, source=CIM_CODE)
_jepa = partial(  # no class token; features are pooled patches
    _vit,
    method="I-JEPA",
    has=(DDP_PREFIX + r"pos_embed$", DDP_PREFIX + r"patch_embed\.proj\.weight$", DDP_PREFIX + r"norm\.weight$"),
    rename=((r"^module\.", ""),),
    options={"class_token": False, "global_pool": "avg", "fc_norm": False},
    source=JEPA_CODE,
)

VIT_FORMATS = (
    _cim(
        name="CIM pre-trained",
        has=(*VIT_KEYS, FINAL_NORM, r"^blocks_c\.", r"^decoder_corr_block\."),
        dropped=(r"^(patch_embed|blocks|norm)_c\.", r"^decoder_"),
    ),
    _cim(
        name="CIM pre-trained, EMA encoder",
        part="ema",
        has=(*VIT_KEYS, r"^norm_c\.weight$", r"^blocks_c\.", r"^decoder_corr_block\."),
        rename=((r"^(patch_embed|blocks|norm)_c\.", r"\1."),),
        dropped=(r"^(patch_embed|blocks|norm)\.", r"^decoder_"),
    ),
    _cim(
        name="CIM encoder",
        has=(*VIT_KEYS, FINAL_NORM),
        checks=(positions(SINCOS), patch_projection(trained=False)),
    ),
    _pooled(
        name="CIM fine-tuned",
        method="CIM",
        checks=(positions(SINCOS),),  # CIM keeps positions fixed in fine-tuning; MAE trains them
        source=CIM_CODE,
    ),
    _encoder(
        name="MAE pre-trained",
        method="MAE",
        has=(*VIT_KEYS, FINAL_NORM, r"^decoder_blocks\.", r"^decoder_pred\."),
        dropped=(r"^decoder_", r"^mask_token$"),
        epoch_shift=1,
        source=MAE_CODE,
    ),
    _encoder(
        name="MAE encoder",
        method="MAE",
        checks=(positions(SINCOS), patch_projection(trained=True)),
        epoch_shift=1,
        source=MAE_CODE,
    ),
    _pooled(name="MAE fine-tuned", method="MAE", checks=(positions(NO_SINCOS),), source=MAE_CODE),
    _vit(
        name="MoCo v3 ViT",
        method="MoCo v3",
        has=(DDP_PREFIX + r"base_encoder\.cls_token$", DDP_PREFIX + r"base_encoder\.blocks\.0\.attn\.qkv\.weight$"),
        rename=((DDP_PREFIX + r"base_encoder\.", ""),),
        dropped=(DDP_PREFIX + r"(momentum_encoder|predictor)\.", DDP_PREFIX + r"base_encoder\.head\."),
        heads={384: 12},
        source=MOCO3_CODE,
    ),
    _encoder(
        name="MoCo v3 encoder for DeiT",
        method="MoCo v3",
        checks=(positions(SINCOS_MOCO3),),
        heads={384: 12},
        source=MOCO3_CODE,
    ),
    _jepa(name="I-JEPA", under=("target_encoder",)),  # what the paper evaluates (appendix A.1)
    _jepa(name="I-JEPA, context encoder", under=("encoder",), part="encoder"),
    _encoder(
        name="timm ViT encoder",
        method="",
        also=TIMM_EXTRAS,
        checks=(positions(NO_SINCOS),),
        resample="antialias",
        normalisation=OfTimm(),
        source=TIMM_CODE,
    ),
    _vit(
        name="timm ViT classifier",
        method="",
        kind="classifier",
        has=(*VIT_KEYS, FINAL_NORM, r"^head\.weight$"),
        also=(*HEAD, *TIMM_EXTRAS),
        checks=(positions(NO_SINCOS),),  # MoCo v3's linear classifiers keep its table, and 12 heads
        resample="antialias",
        normalisation=OfTimm(),
        source=TIMM_CODE,
    ),
    _pooled(
        name="timm ViT classifier, mean-pooled",
        method="",
        also=(*POOLED_HEAD, *TIMM_EXTRAS),
        checks=(positions(NO_SINCOS),),
        resample="antialias",
        normalisation=OfTimm(),
        source=TIMM_CODE,
    ),
)
