"""Typed sections of TOML files, and error messages that speak of the file's own keys."""
