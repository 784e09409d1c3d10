"""The durable state of a run: one schema with checksums, in a SQLite file."""
