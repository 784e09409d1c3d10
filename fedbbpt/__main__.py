"""Runs the command line: `python -m fedbbpt`."""

from fedbbpt.cli import main

main()
