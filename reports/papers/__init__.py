"""One folder a paper, declaring its tables.

They are found through the registry. They import the rest of `cim_bench.reports`.
"""
