"""Describe a checkpoint in words, and gather evidence of whether its weights were trained.

`inspect.inspect` and `randomness.examine` are what others import. It imports the rest of `cim_bench.models`.
"""
