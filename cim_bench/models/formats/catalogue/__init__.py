"""The public checkpoint formats that are recognised, one literal declaration each, by family of networks.

`formats.FORMATS` is what others import. It imports `cim_bench.models.formats.format`.
"""
