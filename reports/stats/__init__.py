"""Intervals, paired tests and mCE: pure functions of numbers.

Imports nothing of this package.
"""
