"""Backends of the PTM service: the models that it can load."""
