"""The order of the model's work: micro-batches of a call, a queue that is fair to tenants, and threads that run it."""
