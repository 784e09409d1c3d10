"""Loops that score prompts with transformers and torch alone. The service is compared with them."""
