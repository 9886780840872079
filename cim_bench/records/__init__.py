"""Measurements, records and outcomes: what a number is and how it is kept on disk.

Everything here may be imported from anywhere above, reports included. It imports `cim_bench.common`, and no torch.
"""
