"""Packages with entry points that a test installs without pip: a folder on `sys.path` is all that Python looks at."""

from pathlib import Path

import pytest

from fedbbpt.host import plugins


def write_package(folder: Path, name: str, entry_points: dict[str, dict[str, str]], module: str = "") -> Path:
    """Writes a package of one module and returns its folder, which belongs on `sys.path` or in PYTHONPATH.

    Args:
        entry_points: For each group, the objects as "module:attribute" by entry-point name.
        module: The source of the module `name`.
    """
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        line
        for group, offers in entry_points.items()
        for line in (f"[{group}]", *(f"{entry} = {value}" for entry, value in offers.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.py").write_text(module)
    return folder


def use_package(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes a folder's packages importable in this process until the test ends."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(plugins, "_found", plugins._found.__wrapped__)
