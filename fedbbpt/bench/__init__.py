"""Methods and baselines side by side: on the same shots, with the same PTM, for the same number of queries."""
