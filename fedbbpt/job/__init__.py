"""Job files: their sections, how they are read and written, and the settings that clients are told."""
