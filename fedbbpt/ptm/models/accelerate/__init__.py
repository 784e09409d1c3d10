"""Faster forward passes: fused layers, CUDA graphs, other runtimes, packed layers, micro-batch sizes."""
