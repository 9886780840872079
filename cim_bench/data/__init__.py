"""Image sets: reading, transforming and checking them, and what the released ones hold.

`images`, `transforms`, `classes` and `sets` are what others import; `check` is the command ``data check``, `photos` the
demo's own set. It imports `cim_bench.common` and `cim_bench.spec`.
"""
