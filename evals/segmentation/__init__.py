"""Semantic segmentation: ADE20K's protocols in three depths."""
