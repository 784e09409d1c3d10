"""Language models behind an HTTP server that speaks the OpenAI protocol."""
