"""Tenants of the PTM service: identity, agreement, budget, output policy, audit, and the state kept for each."""
