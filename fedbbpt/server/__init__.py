"""The coordinator: rounds, their durable state, and the services that clients and operators call."""
