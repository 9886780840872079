"""Ready-made recipes: functions that return one complete dataclass.

They are found through the registry. They import `cim_bench.evals`, `cim_bench.pretrain` and `cim_bench.benchmark`.
"""
