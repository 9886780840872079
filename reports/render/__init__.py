"""Filled tables as text.

Imports `cim_bench.reports.tables`.
"""
