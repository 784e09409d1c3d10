"""gRPC: channels, servers and interceptors, and the translation between types, errors and messages."""
