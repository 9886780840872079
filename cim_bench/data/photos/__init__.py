"""The demo's photographs, and shifted copies of them.

`crops.photos` and `shifts.photo_shift` give folders; the readers open them. Imports `cim_bench.common`.
"""
