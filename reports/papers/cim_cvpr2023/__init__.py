"""The tables of "Correlational Image Modeling for Self-Supervised Visual Pre-Training" (Li et al., CVPR 2023).

`tables.report` and `matrix.report` are what the registry names.
"""
