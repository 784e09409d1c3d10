"""Optimizers: searches as conversations of `ask` and `tell`, their state plain arrays."""
