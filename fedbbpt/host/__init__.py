"""The machine that a process runs on: its files, and the optional packages that it has."""
