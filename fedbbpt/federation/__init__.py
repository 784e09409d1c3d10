"""Whole federations: their data, their roles, their runs in one process or in many, and their results."""
