"""Measures how fast a PTM service is on this machine, next to loops written on transformers alone.

The service is `fedbbpt ptm serve`, asked from outside over gRPC. Everything that is compared is measured in the same
run and in turns, because a machine's speed changes from minute to minute. Ratios are taken between neighbouring
measurements, and the median ratio counts. No module here imports the engine or a backend.
"""
