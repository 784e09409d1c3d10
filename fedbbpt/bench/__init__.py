"""Benchmarks: `methods` compares tuning methods at equal queries, `ptm` measures how fast a PTM service is."""
