"""What runs the jobs of a plan on this machine.

Executors are found through the registry. They import `cim_bench.contracts` and below.
"""
