"""Hashes, seeds, files, numerical bounds, errors and progress, for every other room.

Everything here may be imported from anywhere. It imports nothing of this package.
"""
