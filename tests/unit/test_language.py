"""Texts read as plain English: docstrings are sentences, and phrases that puzzled readers stay out."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = sorted(path for path in (ROOT / "fedbbpt").rglob("*.py") if "_pb2" not in path.name)
TEXTS = sorted(
    path
    for folder, kind in [("fedbbpt", "*.py"), ("tests", "*.py"), ("protos", "*.proto"), ("docs", "*.md")]
    for path in (ROOT / folder).rglob(kind)
    if "_pb2" not in path.name and path != Path(__file__)
)
FRAGMENT = re.compile(r"(Of|That|Which|Whose|Who)\b")
END = re.compile(r"[.:?]$")
RIDDLES = re.compile(r"\b(hangs? on|hanging on|but for|not to be had|reckon\w*)\b", re.IGNORECASE)
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def inherited_methods() -> set[str]:
    """Returns the names of methods whose contract is elsewhere: in `fedbbpt.interfaces`, in a proto, or in grpc."""
    tree = ast.parse((ROOT / "fedbbpt/interfaces.py").read_text())
    protocols = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    rpcs = {rpc for path in (ROOT / "protos").rglob("*.proto") for rpc in re.findall(r"\brpc (\w+)", path.read_text())}
    return protocols | rpcs | {"intercept_service"}


def public(tree: ast.Module) -> Iterator[tuple[str, Documented, bool]]:
    """Yields the name of each public module, class and function, its node, and whether it is a method."""
    if tree.body:
        yield "the module", tree, False
    pending: list[tuple[list[ast.stmt], bool]] = [(tree.body, False)]
    while pending:
        body, in_class = pending.pop()
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
                "_"
            ):
                yield node.name, node, in_class
                if isinstance(node, ast.ClassDef):
                    pending.append((node.body, True))


def exempt(node: Documented) -> bool:
    """Says whether an overload or a setter, which shares the docstring of another function."""
    return any(re.search(r"overload|setter", ast.unparse(one)) for one in getattr(node, "decorator_list", []))


def faults(text: str, inherited: set[str]) -> list[str]:
    """Returns what is wrong with the docstrings of a module.

    A method needs none whose name is among `inherited`, or has a docstring in another class of the module.
    """
    found, members = [], list(public(ast.parse(text)))
    inherited = inherited | {name for name, node, is_method in members if is_method and ast.get_docstring(node)}
    for name, node, is_method in members:
        docstring = ast.get_docstring(node)
        if docstring is None:
            if not exempt(node) and not (is_method and name in inherited):
                found.append(f"{name} has no docstring")
            continue
        first = docstring.partition("\n\n")[0]
        if FRAGMENT.match(first):
            found.append(f"{name}: {first!r} is a fragment")
        if not END.search(first):
            found.append(f"{name}: {first!r} is no sentence")
    return found


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_have_docstrings_of_whole_sentences(path: Path) -> None:
    inherited = set() if path.name == "interfaces.py" else inherited_methods()
    if path.parent.name == "sinks" and path.name != "sink.py":
        tree = ast.parse(path.with_name("sink.py").read_text())  # the contract of all sinks
        inherited |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert faults(path.read_text(), inherited) == []


def test_texts_have_no_riddling_phrases() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if RIDDLES.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "def score():\n    pass",
        'class Job:\n    """Of the model\'s owner."""',
        'def score():\n    """Returns the scores"""',
        'class Job:\n    """A job."""\n    def run(self):\n        pass',
    ],
)
def test_faulty_docstrings_are_found(text: str) -> None:
    assert len(faults(f'"""A module."""\n{text}\n', inherited=set())) == 1
