"""Benchmarks: `methods` at equal queries, `data` at several sizes, and how fast a `ptm` service is."""
