"""Backbones and checkpoints: ours, everybody's, and whether their weights were trained.

`backbone`, `checkpoint`, `key_contract` and `positions` are what others import. It imports `cim_bench.data`,
`cim_bench.spec` and `cim_bench.common`.
"""
