"""Accuracy against the number of examples: of members who learn alone, together, and with all examples in one place."""
