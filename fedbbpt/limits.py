"""Every size limit that protects a service or bounds a message or a file."""

MAX_PROMPTS = 256
"""Prompts in one call."""
MAX_EXAMPLES = 10_000
"""Examples in one handle."""
MAX_CLASSES = 1000
"""Classes of a task."""
