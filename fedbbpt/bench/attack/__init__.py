"""Attacks by some of the clients, and what each defence leaves of them."""
