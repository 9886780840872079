"""What plug-ins are: pretexts, evaluators and executors, and what each is given.

Everything here may be imported from above. It imports `cim_bench.engine`, `cim_bench.models`, `cim_bench.data`,
`cim_bench.records` and below.
"""
