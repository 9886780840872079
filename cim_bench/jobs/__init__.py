"""A benchmark as a graph of jobs, and how each is carried out, skipped or recorded as failed.

`runner.Runner` is what others import. It imports `cim_bench.benchmark`, `cim_bench.contracts` and below, and no
method, protocol or report.
"""
