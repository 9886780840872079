"""The training loop and the pass over images that everything shares, on any number of processes.

`fit`, `samples`, `schedule`, `inference` and `devices` are what others import. It imports `cim_bench.data`,
`cim_bench.spec` and `cim_bench.common`.
"""
