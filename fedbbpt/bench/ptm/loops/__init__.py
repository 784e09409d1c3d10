"""Loops that score prompts with transformers and torch alone: what the service is compared with."""
