"""Records, published figures and outcomes as frames.

Imports `cim_bench.records` and `cim_bench.data.sets`.
"""
