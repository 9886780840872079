"""Pretexts: self-supervised methods that train a backbone without labels, one file or folder each.

They are found through the registry; they do not know evaluators or reports. They import `cim_bench.contracts` and
below.
"""
