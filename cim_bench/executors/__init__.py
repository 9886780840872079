"""What runs the jobs of a graph on this machine.

Executors are found through the registry, `local.LocalExecutor` is the default of a benchmark. They import
`cim_bench.contracts` and below.
"""
