"""Public formats of ResNets; all have BatchNorm eps 1e-5."""

from __future__ import annotations

from functools import partial

from cim_bench.models.formats.catalogue.common import DDP_PREFIX, DINO_CODE, MOCO3_CODE, TIMM_CODE
from cim_bench.models.formats.format import Check, Format, State
from cim_bench.models.formats.normalisation import IMAGENET, Cited, OfTimm

RESNET_KEY = r"layer1\.0\.conv1\.weight$"
SQUEEZE = r"layer[1-4]\.\d+\.se\.\w+\.(weight|bias)"  # of timm's seresnet*, which --arch names
MOCO2_CODE = "facebookresearch/moco (moco/builder.py, main_lincls.py)"
SIMSIAM_CODE = "facebookresearch/simsiam (simsiam/builder.py, main_lincls.py)"
SWAV_CODE = "facebookresearch/swav (src/resnet50.py, main_swav.py)"
SOLO_CODE = "vturrisi/solo-learn (solo/methods)"
MM_CODE = "open-mmlab/mmselfsup and mmpretrain"

BYOL = "it has BYOL's momentum copy and predictor with bias, and no queue"
NOT_BYOL = "it has not all of BYOL's parts"


def byol_of_solo_learn(state: State) -> str:
    """Whether a file of solo-learn is BYOL's: its MoCo v3 has a predictor without bias, its NNBYOL a queue."""
    has = {key.partition(".")[0] for key in state} >= {"momentum_backbone", "predictor"}
    return BYOL if has and "predictor.0.bias" in state and "queue" not in state else NOT_BYOL


_resnet = partial(Format, family="resnet")
_inside = partial(_resnet, under=("state_dict", ""), has=(r"^backbone\." + RESNET_KEY,), rename=((r"^backbone\.", ""),))
_solo = partial(_inside, epoch_shift=1, source=SOLO_CODE)
_mm = partial(_inside, dropped=(r"^(neck|head|target_net|online_net|data_preprocessor)\.",), source=MM_CODE)
_bare = partial(
    _resnet,
    method="",
    also=(SQUEEZE,),
    may_lack_counters=True,  # files of torch < 0.4.1, such as torchvision's first ones
    normalisation=OfTimm(otherwise=IMAGENET),
)

RESNET_FORMATS = (
    _resnet(
        name="MoCo v3 ResNet",
        method="MoCo v3",
        has=(DDP_PREFIX + r"base_encoder\." + RESNET_KEY,),
        rename=((DDP_PREFIX + r"base_encoder\.", ""),),
        dropped=(DDP_PREFIX + r"(momentum_encoder|predictor)\.", DDP_PREFIX + r"base_encoder\.fc\."),
        source=MOCO3_CODE,
    ),
    _resnet(
        name="MoCo v2",
        method="MoCo v2",
        has=(DDP_PREFIX + r"encoder_q\." + RESNET_KEY, DDP_PREFIX + r"encoder_q\.fc\.0\.weight$"),
        rename=((DDP_PREFIX + r"encoder_q\.", ""),),
        dropped=(DDP_PREFIX + r"encoder_k\.", DDP_PREFIX + r"queue(_ptr)?$", DDP_PREFIX + r"encoder_q\.fc\."),
        source=MOCO2_CODE,
    ),
    _resnet(
        name="SimSiam",
        method="SimSiam",
        has=(DDP_PREFIX + r"encoder\." + RESNET_KEY, DDP_PREFIX + r"predictor\.0\.weight$"),
        rename=((DDP_PREFIX + r"encoder\.", ""),),
        dropped=(DDP_PREFIX + r"predictor\.", DDP_PREFIX + r"encoder\.fc\."),
        source=SIMSIAM_CODE,
    ),
    _resnet(
        name="Barlow Twins",
        method="Barlow Twins",
        has=(r"^module\.backbone\." + RESNET_KEY, r"^module\.projector\.", r"^module\.bn\.running_mean$"),
        rename=((r"^module\.backbone\.", ""),),
        dropped=(r"^module\.(projector|bn)\.",),
        source="facebookresearch/barlowtwins (main.py)",
    ),
    _resnet(
        name="MFM ResNet",
        method="MFM",
        has=(r"^encoder\." + RESNET_KEY, r"^decoder\.0\.weight$"),
        rename=((r"^encoder\.", ""),),
        dropped=(r"^decoder\.0\.",),
        args=("DATA.FILTER_TYPE=mfm",),
        epoch_shift=1,
        source="Jiahao000/MFM (models/mfm.py, models/resnet.py)",
    ),
    _resnet(
        name="SwAV",
        method="SwAV",
        has=(DDP_PREFIX + RESNET_KEY, DDP_PREFIX + r"projection_head\.", DDP_PREFIX + r"prototypes\.weight$"),
        rename=((r"^module\.", ""),),
        dropped=(DDP_PREFIX + r"projection_head\.", DDP_PREFIX + r"prototypes\."),
        normalisation=Cited(IMAGENET.mean, (0.228, 0.224, 0.225)),  # src/multicropdataset.py, eval_linear.py
        source=SWAV_CODE,  # pads by 1 and then by 2 in its first convolution: torchvision's 3
    ),
    _resnet(
        name="DINO ResNet",
        method="DINO",
        under=("teacher",),
        has=(DDP_PREFIX + r"backbone\." + RESNET_KEY, DDP_PREFIX + r"head\.last_layer\."),
        rename=((DDP_PREFIX + r"backbone\.", ""),),
        dropped=(DDP_PREFIX + r"head\.(mlp|last_layer)\.",),
        source=DINO_CODE,
    ),
    _solo(
        name="BYOL (solo-learn)",
        method="BYOL",
        has=(r"^backbone\." + RESNET_KEY, r"^momentum_backbone\."),
        dropped=(r"^(momentum_backbone|(momentum_)?(projector|predictor|classifier))\.",),
        checks=(Check(byol_of_solo_learn, BYOL),),
    ),
    _solo(
        name="solo-learn ResNet",
        method="",
        has=(r"^backbone\." + RESNET_KEY, r"^projector\."),
        dropped=(r"^(momentum_backbone|prototypes|(momentum_)?(projector|predictor|classifier))\.", r"^queue(_\w+)?$"),
        checks=(Check(byol_of_solo_learn, NOT_BYOL),),
    ),
    _mm(name="BYOL (OpenMMLab)", method="BYOL", has=(r"^backbone\." + RESNET_KEY, r"^target_net\.")),
    _mm(
        name="OpenMMLab ResNet",
        method="",
        has=(r"^backbone\." + RESNET_KEY, r"^neck\."),  # without a neck it is a classifier, whatever trained it
        dropped=(r"^neck\.", r"^head\.(?!fc\.)", r"^data_preprocessor\."),
    ),
    _bare(
        name="ResNet encoder", has=("^" + RESNET_KEY, r"^conv1\.weight$"), source=f"{TIMM_CODE}; DINO's hub file is one"
    ),
    _bare(
        name="ResNet classifier",
        kind="classifier",
        has=("^" + RESNET_KEY, r"^conv1\.weight$", r"^fc\.weight$"),
        also=(r"fc\.(weight|bias)", SQUEEZE),
        source=TIMM_CODE,
    ),
)
