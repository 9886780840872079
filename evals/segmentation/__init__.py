"""Semantic segmentation: mean IoU on sets in ADE20K's layout."""
