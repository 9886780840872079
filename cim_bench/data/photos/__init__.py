"""The demo's photographs, shifted copies of them, and mosaics of them with exact masks.

`crops.photos`, `shifts.photo_shift` and `mosaics.photo_mosaics` give folders, which readers and segmentation sets open.
Imports `cim_bench.common`.
"""
