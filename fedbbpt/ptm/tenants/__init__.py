"""Tenants of the PTM service: who they are, what they may use and see, and what the service keeps for them."""
