"""What formats of several families share: a key prefix, heads, and the public code that writes them."""

from __future__ import annotations

DDP_PREFIX = r"^(module\.)?"  # of keys saved from DistributedDataParallel
VIT_KEYS = (r"^cls_token$", r"^pos_embed$", r"^patch_embed\.proj\.weight$", r"^blocks\.0\.attn\.qkv\.weight$")
FINAL_NORM = r"^norm\.weight$"
HEAD = (r"head\.(weight|bias)",)
POOLED_HEAD = (*HEAD, r"fc_norm\.(weight|bias)")
MOCO3_CODE = "facebookresearch/moco-v3 (vits.py, moco/builder.py, main_lincls.py, convert_to_deit.py)"
DINO_CODE = "facebookresearch/dino (vision_transformer.py, main_dino.py, utils.py)"
TIMM_CODE = "huggingface/pytorch-image-models and pytorch/vision"
