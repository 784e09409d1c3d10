"""CONTRIBUTING.md: its worked examples run, and the files, commands and names in it exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("source", EXAMPLES, ids=lambda source: re.findall(r"class (\w+)", source)[0])
def test_worked_example_runs_and_its_assertions_hold(source: str) -> None:
    assert "assert " in source
    exec(compile(source, "CONTRIBUTING.md", "exec"), {"__name__": "contributing"})


def test_paths_exist() -> None:
    named = re.findall(r"`((?:fedbbpt|protos|tests|docs|examples)/[\w./-]*)`", PAGE)
    named += re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([\w-]+)`", PAGE)) <= set(targets)


def test_code_names_exist() -> None:
    places = {
        "METHODS": "fedbbpt/methods/__init__.py",
        "FAMILIES": "fedbbpt/ptm/models/families.py",
        "CODECS": "fedbbpt/codecs/__init__.py",
        "_CODECS": "fedbbpt/wire/messages/coordinator_messages.py",
        "_FORMS": "fedbbpt/wire/messages/prompt_messages.py",
        "PromptKind": "fedbbpt/types/prompt_kinds.py",
    }
    assert all(f"`{name}`" in PAGE for name in places)
    missing = [name for name, place in places.items() if not re.search(rf"\b{name}\b", (ROOT / place).read_text())]
    assert missing == []
