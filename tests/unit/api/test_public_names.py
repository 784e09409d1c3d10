"""The public names of the package. A name that is added or removed is added or removed here, too."""

import ast
import importlib
from pathlib import Path

import pytest

import fedbbpt

NAMES = """
__version__ Answers Backend ClientHalf Columns Comparison DataWarning Examples FedbbptError FinishedRun Gain Job
LabelledExamples Measured Method MethodConfig MethodSettings ModelCard Objectives Prediction PromptCard PromptSpace
Ptm Report Result ServerHalf SimulatedRun Task TaskSpec TunedPrompt Update WhiteBox ask load_job load_prompt
make_job merge open_ptm parse_job simulate unpack
"""


def test_public_names_are_the_listed_ones() -> None:
    assert sorted(fedbbpt.__all__) == sorted(NAMES.split())
    assert set(fedbbpt.__all__) <= set(dir(fedbbpt))


def test_every_public_name_is_documented() -> None:
    for name in fedbbpt.__all__:
        if name != "__version__":
            assert getattr(fedbbpt, name).__doc__, name


def test_type_checkers_see_the_same_names() -> None:
    stub = ast.parse(Path(fedbbpt.__file__).with_suffix(".pyi").read_text())
    imported = {
        alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert imported.keys() | {"__version__"} == set(fedbbpt.__all__)
    for name, module in imported.items():
        assert module is not None
        assert getattr(importlib.import_module(module), name) is getattr(fedbbpt, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'federate'"):
        fedbbpt.federate  # type: ignore[attr-defined]  # noqa: B018  # the name is unknown on purpose
