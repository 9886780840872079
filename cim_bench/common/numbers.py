"""Bounds of fp32 arithmetic that checks of results allow for."""

from __future__ import annotations

ROUNDING = 1e-6  # of pixels in [0, 1]: (x + eps) - x differs from eps by up to 6e-8 (2^-24) in fp32
