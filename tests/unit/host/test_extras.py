"""Missing optional packages, and how the user learns which extra to install."""

import importlib

import pytest

from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.host.extras import needs_extra, require_package


def test_a_missing_package_is_reported_with_the_command_that_installs_it() -> None:
    message = "model: absent_package is not installed; pip install 'fedbbpt\\[ptm\\]', or the model fake"
    with pytest.raises(InvalidInput, match=message), needs_extra("ptm", where="model", alternative="the model fake"):
        importlib.import_module("absent_package.part")
    with pytest.raises(InvalidInput, match=message):
        require_package("absent_package", "ptm", where="model", alternative="the model fake")


def test_installed_packages_are_not_reported() -> None:
    with needs_extra("ptm", where="model"):
        importlib.import_module("numpy")
    require_package("numpy", "ptm", where="model")


def test_a_missing_module_of_this_project_is_not_blamed_on_the_installation() -> None:
    with pytest.raises(ModuleNotFoundError), needs_extra("ptm", where="model"):
        raise ModuleNotFoundError("No module named 'fedbbpt.gone'", name="fedbbpt.gone")


@pytest.mark.parametrize(
    ("message", "line"),
    [("one\ntwo", "one"), ("\n  one \ntwo", "one"), ("", "ValueError"), (" \n", "ValueError")],
)
def test_first_line_is_the_first_that_says_something(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line
