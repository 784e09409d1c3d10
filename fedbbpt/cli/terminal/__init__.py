"""The terminal: options that commands share, output for people and scripts, and the life of a service."""
