"""The one training loop and the one pass over images, on any number of processes.

`fit`, `samples`, `schedule`, `inference` and `devices` are what others import. It imports `cim_bench.data`,
`cim_bench.spec` and `cim_bench.common`.
"""
