"""Code generated from protos/fedbbpt/v1; `make protos` writes it."""
