"""The self-test: a released model's accuracy on clean images beside its published one, before a matrix is started.

`measure` is what the command imports. It imports `evals` and `reports`, which may not import each other.
"""
