"""Public formats of ResNets; all have BatchNorm eps 1e-5."""

from __future__ import annotations

from cim_bench.models.formats.catalogue.common import DDP_PREFIX, DINO_CODE, ENTRIES, MOCO3_CODE, TIMM_CODE
from cim_bench.models.formats.format import Format

RESNET_KEY = r"layer1\.0\.conv1\.weight$"
MOCO2_CODE = "facebookresearch/moco (moco/builder.py, main_lincls.py)"
SIMSIAM_CODE = "facebookresearch/simsiam (simsiam/builder.py, main_lincls.py)"
SWAV_CODE = "facebookresearch/swav (src/resnet50.py, main_swav.py)"
SOLO_CODE = "vturrisi/solo-learn (solo/methods)"
MM_CODE = "open-mmlab/mmselfsup and mmpretrain"

RESNET_FORMATS = (
    Format(
        name="MoCo v3 ResNet",
        method="MoCo v3",
        family="resnet",
        under=("state_dict", "model", ""),
        has=(DDP_PREFIX + r"base_encoder\." + RESNET_KEY,),
        rename=((DDP_PREFIX + r"base_encoder\.", ""),),
        dropped=(DDP_PREFIX + r"(momentum_encoder|predictor)\.", DDP_PREFIX + r"base_encoder\.fc\."),
        source=MOCO3_CODE,
    ),
    Format(
        name="MoCo v2",
        method="MoCo v2",
        family="resnet",
        under=("state_dict", "model", ""),
        has=(DDP_PREFIX + r"encoder_q\." + RESNET_KEY, DDP_PREFIX + r"encoder_q\.fc\.0\.weight$"),
        rename=((DDP_PREFIX + r"encoder_q\.", ""),),
        dropped=(DDP_PREFIX + r"encoder_k\.", DDP_PREFIX + r"queue(_ptr)?$", DDP_PREFIX + r"encoder_q\.fc\."),
        source=MOCO2_CODE,
    ),
    Format(
        name="SimSiam",
        method="SimSiam",
        family="resnet",
        under=("state_dict", "model", ""),
        has=(DDP_PREFIX + r"encoder\." + RESNET_KEY, DDP_PREFIX + r"predictor\.0\.weight$"),
        rename=((DDP_PREFIX + r"encoder\.", ""),),
        dropped=(DDP_PREFIX + r"predictor\.", DDP_PREFIX + r"encoder\.fc\."),
        source=SIMSIAM_CODE,
    ),
    Format(
        name="SwAV",
        method="SwAV",
        family="resnet",
        under=("state_dict", "model", ""),
        has=(DDP_PREFIX + RESNET_KEY, DDP_PREFIX + r"projection_head\.", DDP_PREFIX + r"prototypes\.weight$"),
        rename=((r"^module\.", ""),),
        dropped=(DDP_PREFIX + r"projection_head\.", DDP_PREFIX + r"prototypes\."),
        std=(0.228, 0.224, 0.225),  # src/multicropdataset.py, eval_linear.py
        source=SWAV_CODE,  # pads by 1 and then by 2 in its first convolution: torchvision's 3
    ),
    Format(
        name="DINO ResNet",
        method="DINO",
        family="resnet",
        under=("teacher",),
        has=(DDP_PREFIX + r"backbone\." + RESNET_KEY, DDP_PREFIX + r"head\.last_layer\."),
        rename=((DDP_PREFIX + r"backbone\.", ""),),
        dropped=(DDP_PREFIX + r"head\.(mlp|last_layer)\.",),
        source=DINO_CODE,
    ),
    Format(
        name="BYOL (solo-learn)",
        method="BYOL",
        family="resnet",
        under=("state_dict", ""),
        # solo-learn's MoCo v3 has a predictor too, without bias
        has=(r"^backbone\." + RESNET_KEY, r"^predictor\.0\.bias$", r"^momentum_backbone\."),
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
        has=(r"^backbone\." + RESNET_KEY, r"^projector\."),
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
        has=(r"^backbone\." + RESNET_KEY, r"^target_net\."),
        rename=((r"^backbone\.", ""),),
        dropped=(r"^(neck|head|target_net|online_net|data_preprocessor)\.",),
        source=MM_CODE,
    ),
    Format(
        name="OpenMMLab ResNet",
        method="",
        family="resnet",
        under=("state_dict", ""),
        has=(r"^backbone\." + RESNET_KEY, r"^neck\."),  # without a neck it is a classifier, whatever trained it
        lacks=(r"^head\.fc\.(weight|bias)$", r"^(projector|classifier)\.", r"^head\.last_layer\.", r"^cls_token$"),
        rename=((r"^backbone\.", ""),),
        dropped=(r"^(neck|head|data_preprocessor)\.",),
        source=MM_CODE,
    ),
    Format(
        name="ResNet encoder",
        method="",
        family="resnet",
        under=ENTRIES,
        has=("^" + RESNET_KEY, r"^conv1\.weight$"),
        lacks=(r"^fc\.", r"^projection_head\."),
        may_lack_counters=True,  # files of torch < 0.4.1, such as torchvision's first ones
        tagged=True,
        source=f"{TIMM_CODE}; DINO's hub file is one",
    ),
    Format(
        name="ResNet classifier",
        method="",
        kind="classifier",
        family="resnet",
        under=ENTRIES,
        has=("^" + RESNET_KEY, r"^conv1\.weight$", r"^fc\.weight$"),
        may_lack_counters=True,  # files of torch < 0.4.1, such as torchvision's first ones
        tagged=True,
        source=TIMM_CODE,
    ),
)
