"""Chooses the precision of a model's layers by measuring it."""
