"""Translation between types and protobuf messages, one module per service or noun."""
