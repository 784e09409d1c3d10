"""Draws the screenshots of docs/guides/dashboard.md, with Debian's Chromium: `python docs/draw_dashboard.py`."""

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the federation on the pictures is that of the tests
    import_module("tests.browser.drawing").draw(ROOT / "docs" / "images")
