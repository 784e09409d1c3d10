"""Draws docs/images/packages.svg from the import layers in pyproject.toml and the docstrings of the packages.

    python docs/draw_packages.py

A test fails if the stored picture differs from a new one.
"""

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/images/packages.svg"
WIDTH, MARGIN, GAP, LINE = 1040, 16, 12, 16
STYLE = """
    text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f; }
    .name { font-size: 15px; font-weight: 600; }
    .note { font-size: 12px; fill: #57606a; }
    rect { fill: #f6f8fa; stroke: #8c959f; stroke-width: 1; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .note { fill: #9198a1; }
      rect { fill: #161b22; stroke: #6e7681; }
    }
  """


def layers() -> list[list[str]]:
    """Returns the names of the packages in each layer, the highest layer first, without the prefix "fedbbpt."."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[package.strip().removeprefix("fedbbpt.") for package in re.split(r"[|:]", row)] for row in rows]


def purpose(package: str) -> str:
    """Returns the first sentence of a package's docstring."""
    path = ROOT / "fedbbpt" / package.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text())) or ""
    return re.split(r"(?<=\.) ", " ".join(text.split("\n\n")[0].split()), maxsplit=1)[0].rstrip(".")


def draw() -> str:
    """Returns the picture as SVG."""
    body, top = list[str](), MARGIN
    for row in layers():
        width = (WIDTH - 2 * MARGIN - (len(row) - 1) * GAP) / len(row)
        notes = [textwrap.wrap(purpose(package), int((width - 20) / 6.3)) for package in row]
        height = 32 + LINE * max(len(lines) for lines in notes) + 6
        for place, (package, lines) in enumerate(zip(row, notes, strict=True)):
            body += _box(package, lines, MARGIN + place * (width + GAP), top, width, height)
        top += height + GAP
    title = "The packages of fedbbpt: each row imports only from the rows below it"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img" aria-labelledby="title">'
    return "\n".join([head, f'  <title id="title">{title}</title>', f"  <style>{STYLE}</style>", *body, "</svg>", ""])


def _box(package: str, lines: list[str], left: float, top: float, width: float, height: float) -> Iterator[str]:
    yield f'  <rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6"/>'
    yield f'  <text class="name" x="{left + 10:.0f}" y="{top + 22:.0f}">{escape(package)}</text>'
    for number, line in enumerate(lines):
        yield f'  <text class="note" x="{left + 10:.0f}" y="{top + 40 + LINE * number:.0f}">{escape(line)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw())
    print(f"wrote {PICTURE.relative_to(ROOT)}")
