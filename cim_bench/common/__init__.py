"""Hashes, seeds, files, errors and progress: small things that everything else may use.

Everything here may be imported from anywhere. It imports nothing of this package.
"""
