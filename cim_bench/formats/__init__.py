"""Public checkpoints: one declarative map for each format, and what reads, recognises and accounts for a file."""
