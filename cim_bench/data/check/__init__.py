"""Check that image sets on disk are what they should be, before a run depends on it.

`command.check` is what others import. It imports `cim_bench.data` and `cim_bench.common`, and no torch.
"""
