"""What a checkpoint is, in words, and whether its weights look trained.

`inspect.inspect` and `randomness.examine` are what others import. It imports the rest of `cim_bench.models`.
"""
