"""Conversions between `fedbbpt.types` and the messages of the protos."""
