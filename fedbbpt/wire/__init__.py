"""The only translators between our types and what gRPC carries."""
