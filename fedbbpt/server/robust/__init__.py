"""Defences against clients that lie within what an honest client could send: robust aggregation, one file per rule."""
