"""Correlational Image Modeling: the method, its exemplars and their colours, its encoders, its pictures.

`method.CIM` is what the registry names. It imports `cim_bench.contracts` and below.
"""
