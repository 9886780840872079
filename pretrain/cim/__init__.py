"""Correlational Image Modeling: method, encoders, decoder, exemplars and their photometric changes, pictures.

`method.CIM` is what the registry names. It imports `cim_bench.contracts` and below.
"""
