"""Records to tables: declared columns, rendered as Markdown and CSV; no torch."""
