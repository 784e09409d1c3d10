"""Language models of another server, called over HTTP with the OpenAI protocol."""
