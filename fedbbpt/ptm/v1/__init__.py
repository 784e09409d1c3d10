"""Code generated from protos/fedbbpt/ptm/v1; `make protos` writes it."""
