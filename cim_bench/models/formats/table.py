"""The public checkpoint formats, one literal map each.

A format is recognised from the keys of the file alone (and, for encoders with the same keys, from which fixed table
their positions are, if any, and whether their patch projection was trained). `docs/checkpoints.md` lists them and
says how to add one.
"""

from __future__ import annotations

from cim_bench.models.formats.key_map import Format

HALF = (0.5, 0.5, 0.5)
ANY = ("model", "state_dict", "")
VIT = (r"^cls_token$", r"^pos_embed$", r"^patch_embed\.proj\.weight$", r"^blocks\.0\.attn\.qkv\.weight$")
NO_BEIT = (r"\.q_bias$", r"\.ls1\.gamma$", r"\.gamma_1$")
NO_HEAD = (r"^head\.", r"^fc_norm\.", r"^head_dist\.")
NO_MORE = (r"^decoder_", r"^blocks_c\.", r"^mask_token$")
RESNET = r"layer1\.0\.conv1\.weight$"
COUNTERS = r"\.num_batches_tracked$"  # files of torch < 0.4.1 lack them, such as torchvision's first ones
MODULE = r"^(module\.)?"
REL_INDEX = r"relative_position_index$"  # a constant, which timm makes itself
CIM_CODE = "weivision/Correlational-Image-Modeling (models/cim.py, models/vit.py, tools/main_finetune.py)"
MAE_CODE = "facebookresearch/mae (models_mae.py, models_vit.py, util/misc.py)"
SIMMIM_CODE = "microsoft/SimMIM (models/simmim.py, models/vision_transformer.py, utils.py)"
BEIT_CODE = "microsoft/unilm (beit/modeling_pretrain.py, beit/modeling_finetune.py)"
BEIT2_CODE = "microsoft/unilm (beit2/modeling_finetune.py, beit2/run_class_finetuning.py)"
MOCO3_CODE = "facebookresearch/moco-v3 (vits.py, moco/builder.py, main_lincls.py, convert_to_deit.py)"
DINO_CODE = "facebookresearch/dino (vision_transformer.py, main_dino.py, utils.py)"
DINO2_CODE = "facebookresearch/dinov2 (dinov2/models/vision_transformer.py, dinov2/hub/backbones.py)"
MOCO2_CODE = "facebookresearch/moco (moco/builder.py, main_lincls.py)"
SIMSIAM_CODE = "facebookresearch/simsiam (simsiam/builder.py, main_lincls.py)"
SWAV_CODE = "facebookresearch/swav (src/resnet50.py, main_swav.py)"
SOLO_CODE = "vturrisi/solo-learn (solo/methods)"
MM_CODE = "open-mmlab/mmselfsup and mmpretrain"
TIMM_CODE = "huggingface/pytorch-image-models and pytorch/vision"


# blocks.0.7 in chunks is block 7; ViT-g's gated MLP
DINO2_NAMES = ((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."), (r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."))


# Every ViT here has LayerNorm eps 1e-6, exact GELU, a qkv bias and a final norm, as timm's; every ResNet has
# BatchNorm eps 1e-5. What deviates stands beside its format.
_VITS = (
    Format(
        name="CIM pre-trained",
        method="CIM",
        family="vit",
        under=ANY,
        has=(*VIT, r"^norm\.weight$", r"^blocks_c\.", r"^decoder_corr_block\."),
        dropped=(r"^(patch_embed|blocks|norm)_c\.", r"^decoder_"),
        epoch_shift=1,
        source=CIM_CODE,
    ),
    Format(
        name="CIM pre-trained, EMA encoder",
        method="CIM",
        family="vit",
        under=ANY,
        part="ema",
        has=(*VIT, r"^norm_c\.weight$", r"^blocks_c\.", r"^decoder_corr_block\."),
        rename=((r"^(patch_embed|blocks|norm)_c\.", r"\1."),),
        dropped=(r"^(patch_embed|blocks|norm)\.", r"^decoder_"),
        epoch_shift=1,
        source=CIM_CODE,
    ),
    Format(
        name="CIM encoder",
        method="CIM",
        family="vit",
        under=ANY,
        has=(*VIT, r"^norm\.weight$"),
        lacks=(*NO_BEIT, *NO_HEAD, *NO_MORE),
        sincos="mae",
        frozen_patch=True,
        epoch_shift=1,
        source=CIM_CODE,
    ),
    Format(
        name="CIM fine-tuned",
        method="CIM",
        kind="classifier",
        family="vit",
        under=ANY,
        has=(*VIT, r"^fc_norm\.weight$", r"^head\.weight$"),
        lacks=(*NO_BEIT, r"^norm\."),
        sincos="mae",  # CIM keeps positions fixed in fine-tuning; MAE trains them
        source=CIM_CODE,
    ),
    Format(
        name="MAE pre-trained",
        method="MAE",
        family="vit",
        under=ANY,
        has=(*VIT, r"^norm\.weight$", r"^decoder_blocks\.", r"^decoder_pred\."),
        dropped=(r"^decoder_", r"^mask_token$"),
        epoch_shift=1,
        source=MAE_CODE,
    ),
    Format(
        name="MAE encoder",
        method="MAE",
        family="vit",
        under=ANY,
        has=(*VIT, r"^norm\.weight$"),
        lacks=(*NO_BEIT, *NO_HEAD, *NO_MORE),
        sincos="mae",
        frozen_patch=False,
        epoch_shift=1,
        source=MAE_CODE,
    ),
    Format(
        name="MAE fine-tuned",
        method="MAE",
        kind="classifier",
        family="vit",
        under=ANY,
        has=(*VIT, r"^fc_norm\.weight$", r"^head\.weight$"),
        lacks=(*NO_BEIT, r"^norm\."),
        must_be_named=True,
        sincos="none",
        source=MAE_CODE,
    ),
    Format(
        name="MoCo v3 ViT",
        method="MoCo v3",
        family="vit",
        under=("state_dict", "model", ""),
        has=(MODULE + r"base_encoder\.cls_token$", MODULE + r"base_encoder\.blocks\.0\.attn\.qkv\.weight$"),
        rename=((MODULE + r"base_encoder\.", ""),),
        dropped=(MODULE + r"(momentum_encoder|predictor)\.", MODULE + r"base_encoder\.head\."),
        heads={384: 12},
        source=MOCO3_CODE,
    ),
    Format(
        name="MoCo v3 encoder for DeiT",
        method="MoCo v3",
        family="vit",
        under=ANY,
        has=(*VIT, r"^norm\.weight$"),
        lacks=(*NO_BEIT, *NO_HEAD, *NO_MORE),
        sincos="moco3",
        heads={384: 12},
        source=MOCO3_CODE,
    ),
    Format(
        name="DINO ViT",
        method="DINO",
        family="vit",
        under=("teacher",),
        has=(MODULE + r"backbone\.cls_token$", MODULE + r"head\.last_layer\."),
        lacks=(r"\.ls1\.gamma$",),
        rename=((MODULE + r"backbone\.", ""),),
        dropped=(MODULE + r"head\.(mlp|last_layer)\.",),
        resample="offset",
        source=DINO_CODE,
    ),
    Format(
        name="DINO ViT encoder",
        method="DINO",
        family="vit",
        under=ANY,
        has=(*VIT, r"^norm\.weight$"),
        lacks=(*NO_BEIT, *NO_HEAD, *NO_MORE),
        must_be_named=True,
        sincos="none",
        resample="offset",
        source=DINO_CODE,
    ),
    Format(
        name="DINOv2",
        method="DINOv2",
        family="dinov2",
        under=("", "model", "state_dict"),
        has=(r"^cls_token$", r"^pos_embed$", r"^mask_token$", r"^blocks\.(\d+\.)?0\.ls1\.gamma$"),
        lacks=(r"^register_tokens$",),
        rename=DINO2_NAMES,
        dropped=(r"^mask_token$",),
        resample="offset",
        source=DINO2_CODE,
    ),
    Format(
        name="DINOv2 with registers",
        method="DINOv2",
        family="dinov2",
        under=("", "model", "state_dict"),
        has=(r"^register_tokens$", r"^pos_embed$", r"^mask_token$", r"^blocks\.(\d+\.)?0\.ls1\.gamma$"),
        rename=(*DINO2_NAMES, (r"^register_tokens$", "reg_token")),
        dropped=(r"^mask_token$",),
        resample="antialias",
        source=DINO2_CODE,
    ),
    Format(
        name="DINOv2 teacher",
        method="DINOv2",
        family="dinov2",
        under=("teacher",),
        has=(r"^backbone\.cls_token$", r"^backbone\.blocks\.(\d+\.)?0\.ls1\.gamma$"),
        lacks=(r"^backbone\.register_tokens$",),
        rename=((r"^backbone\.", ""), *DINO2_NAMES),
        dropped=(r"^backbone\.mask_token$", r"^(dino|ibot)_head\."),
        resample="offset",
        source=DINO2_CODE,
    ),
    Format(
        name="timm ViT encoder",
        method="",
        family="vit",
        under=ANY,
        has=(*VIT, r"^norm\.weight$"),
        lacks=(*NO_BEIT, *NO_HEAD, *NO_MORE),
        sincos="none",
        resample="antialias",
        mean=None,
        std=None,
        source=TIMM_CODE,
    ),
    Format(
        name="timm ViT classifier",
        method="",
        kind="classifier",
        family="vit",
        under=ANY,
        has=(*VIT, r"^norm\.weight$", r"^head\.weight$"),
        lacks=(*NO_BEIT, r"^fc_norm\.", *NO_MORE),
        sincos="none",  # MoCo v3's linear classifiers keep its table, and 12 heads
        resample="antialias",
        mean=None,
        std=None,
        source=TIMM_CODE,
    ),
)


# q_bias and v_bias without a bias of the keys, layer scale as gamma_1 and gamma_2: timm's beit, not its vit.
_BEITS = (
    Format(
        name="SimMIM pre-trained",
        method="SimMIM",
        family="beit",
        under=ANY,
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
        under=ANY,
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
        under=ANY,
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
        under=ANY,
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
        under=ANY,
        has=(r"^cls_token$", r"^blocks\.0\.attn\.q_bias$", r"^head\.weight$"),
        lacks=(r"^lm_head\.",),
        dropped=(REL_INDEX,),
        must_be_named=True,  # the keys of BEiT's, trained with --imagenet_default_mean_and_std
        source=BEIT2_CODE,
    ),
)
_RESNETS = (
    Format(
        name="MoCo v3 ResNet",
        method="MoCo v3",
        family="resnet",
        under=("state_dict", "model", ""),
        has=(MODULE + r"base_encoder\." + RESNET,),
        rename=((MODULE + r"base_encoder\.", ""),),
        dropped=(MODULE + r"(momentum_encoder|predictor)\.", MODULE + r"base_encoder\.fc\."),
        source=MOCO3_CODE,
    ),
    Format(
        name="MoCo v2",
        method="MoCo v2",
        family="resnet",
        under=("state_dict", "model", ""),
        has=(MODULE + r"encoder_q\." + RESNET, MODULE + r"encoder_q\.fc\.0\.weight$"),
        rename=((MODULE + r"encoder_q\.", ""),),
        dropped=(MODULE + r"encoder_k\.", MODULE + r"queue(_ptr)?$", MODULE + r"encoder_q\.fc\."),
        source=MOCO2_CODE,
    ),
    Format(
        name="SimSiam",
        method="SimSiam",
        family="resnet",
        under=("state_dict", "model", ""),
        has=(MODULE + r"encoder\." + RESNET, MODULE + r"predictor\.0\.weight$"),
        rename=((MODULE + r"encoder\.", ""),),
        dropped=(MODULE + r"predictor\.", MODULE + r"encoder\.fc\."),
        source=SIMSIAM_CODE,
    ),
    Format(
        name="SwAV",
        method="SwAV",
        family="resnet",
        under=("state_dict", "model", ""),
        has=(MODULE + RESNET, MODULE + r"projection_head\.", MODULE + r"prototypes\.weight$"),
        rename=((r"^module\.", ""),),
        dropped=(MODULE + r"projection_head\.", MODULE + r"prototypes\."),
        std=(0.228, 0.224, 0.225),  # src/multicropdataset.py, eval_linear.py
        source=SWAV_CODE,  # pads by 1 and then by 2 in its first convolution: torchvision's 3
    ),
    Format(
        name="DINO ResNet",
        method="DINO",
        family="resnet",
        under=("teacher",),
        has=(MODULE + r"backbone\." + RESNET, MODULE + r"head\.last_layer\."),
        rename=((MODULE + r"backbone\.", ""),),
        dropped=(MODULE + r"head\.(mlp|last_layer)\.",),
        source=DINO_CODE,
    ),
    Format(
        name="BYOL (solo-learn)",
        method="BYOL",
        family="resnet",
        under=("state_dict", ""),
        # solo-learn's MoCo v3 has a predictor too, without bias
        has=(r"^backbone\." + RESNET, r"^predictor\.0\.bias$", r"^momentum_backbone\."),
        lacks=(r"^queue",),
        rename=((r"^backbone\.", ""),),
        dropped=(r"^(momentum_backbone|(momentum_)?(projector|predictor|classifier))\.",),
        epoch_shift=1,
        source=SOLO_CODE,
    ),
    Format(
        name="solo-learn ResNet",
        method="",
        family="resnet",
        under=("state_dict", ""),
        has=(r"^backbone\." + RESNET, r"^projector\."),
        rename=((r"^backbone\.", ""),),
        dropped=(r"^(momentum_backbone|prototypes|(momentum_)?(projector|predictor|classifier))\.", r"^queue(_\w+)?$"),
        epoch_shift=1,
        source=SOLO_CODE,
    ),
    Format(
        name="BYOL (OpenMMLab)",
        method="BYOL",
        family="resnet",
        under=("state_dict", ""),
        has=(r"^backbone\." + RESNET, r"^target_net\."),
        rename=((r"^backbone\.", ""),),
        dropped=(r"^(neck|head|target_net|online_net|data_preprocessor)\.",),
        source=MM_CODE,
    ),
    Format(
        name="OpenMMLab ResNet",
        method="",
        family="resnet",
        under=("state_dict", ""),
        has=(r"^backbone\." + RESNET, r"^neck\."),  # without a neck it is a classifier, whatever trained it
        lacks=(r"^head\.fc\.(weight|bias)$", r"^(projector|classifier)\.", r"^head\.last_layer\.", r"^cls_token$"),
        rename=((r"^backbone\.", ""),),
        dropped=(r"^(neck|head|data_preprocessor)\.",),
        source=MM_CODE,
    ),
    Format(
        name="ResNet encoder",
        method="",
        family="resnet",
        under=ANY,
        has=("^" + RESNET, r"^conv1\.weight$"),
        lacks=(r"^fc\.", r"^projection_head\."),
        fresh=COUNTERS,
        tagged=True,
        source=f"{TIMM_CODE}; DINO's hub file is one",
    ),
    Format(
        name="ResNet classifier",
        method="",
        kind="classifier",
        family="resnet",
        under=ANY,
        has=("^" + RESNET, r"^conv1\.weight$", r"^fc\.weight$"),
        fresh=COUNTERS,
        tagged=True,
        source=TIMM_CODE,
    ),
)
FORMATS: tuple[Format, ...] = (*_VITS, *_BEITS, *_RESNETS)
