"""cim-bench: one benchmark matrix for self-supervised vision checkpoints."""

__version__ = "0.1.0"
