"""Secure aggregation: the coordinator learns the sum of its clients' updates, and nothing else about any of them."""
