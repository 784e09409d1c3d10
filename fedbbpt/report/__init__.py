"""The page of a finished run: one self-contained HTML file without scripts, and its parts for notebooks."""
