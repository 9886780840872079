"""Backbones, checkpoints (ours and those of other projects), and whether their weights look trained.

`backbone`, `checkpoint`, `key_contract` and `positions` are what others import. It imports `cim_bench.data`,
`cim_bench.spec` and `cim_bench.common`.
"""
