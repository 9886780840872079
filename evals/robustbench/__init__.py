"""RobustBench's leaderboard protocols on our classifiers.

`protocol.RobustBench` is what the registry names; the package robustbench is imported in
`library` alone. It imports `cim_bench.contracts` and below.
"""
