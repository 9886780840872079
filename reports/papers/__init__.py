"""One module a paper, declaring its tables."""
