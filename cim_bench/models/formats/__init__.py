"""Checkpoint files of other projects: recognised by their keys, converted to timm's names, every key accounted for.

`opening.open_checkpoint` and `opening.checkpoint_kind` are what others import. It imports the rest of
`cim_bench.models`, except `cim_bench.models.inspection`.
"""
