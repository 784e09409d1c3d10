"""The operator's page explains every line that asks for attention."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEVELS = ("warning", "error", "exception")


def _lines(module: Path) -> Iterator[str]:
    """Yields the formats of the module's warnings and errors, with an ellipsis in place of each value."""
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(ast.Name("log" | "_LOG"), level), args=[ast.Constant(str(text)), *_]):
                if level in LEVELS:
                    yield re.sub(r"%[sdg]", "…", text)


def test_every_warning_and_error_is_explained_and_nothing_else() -> None:
    logged = {line for module in (ROOT / "fedbbpt").rglob("*.py") for line in _lines(module)}
    section = (ROOT / "docs/operations.md").read_text().split("## What log lines mean")[1].split("\n## ")[0]
    # A line that is only an error's message has that message's own hint.
    assert set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)) == logged - {"…"}
