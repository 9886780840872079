"""What a table is, how it is filled from records, and what its footnotes say.

Imports `cim_bench.reports.read` and `cim_bench.reports.stats`.
"""
