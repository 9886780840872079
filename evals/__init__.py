"""Protocols: each turns a model into measurements, one file or folder each.

They are found through the registry; they do not know pretexts or reports. They import `cim_bench.contracts` and below.
"""
