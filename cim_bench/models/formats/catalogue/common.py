"""What formats of several families share: entries of a file, a key prefix, and the public code that writes them."""

from __future__ import annotations

ENTRIES = ("model", "state_dict", "")  # where most scripts put the state dict; "" is the file itself
DDP_PREFIX = r"^(module\.)?"  # of keys saved from DistributedDataParallel
MOCO3_CODE = "facebookresearch/moco-v3 (vits.py, moco/builder.py, main_lincls.py, convert_to_deit.py)"
DINO_CODE = "facebookresearch/dino (vision_transformer.py, main_dino.py, utils.py)"
TIMM_CODE = "huggingface/pytorch-image-models and pytorch/vision"
