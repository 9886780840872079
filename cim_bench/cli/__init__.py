"""The ``cim-bench`` command: its arguments, its commands, and fields of recipes as options.

Nothing imports from here. It imports everything else, each command what it needs when it runs.
"""
