"""Compares methods and baselines: on the same shots, with the same PTM, for the same number of queries."""
