"""The cost of rounds with clients that compute nothing: their time, next to a bare gRPC barrier, and their bytes."""
