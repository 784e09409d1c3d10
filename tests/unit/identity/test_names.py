"""Names of members."""

import pytest

from fedbbpt.identity.names import is_name, name_from

STRANGE = [" ", "", "client-0000 ", "../../etc/passwd", ".hidden", "a/b", "a\nb", "a\x1b[31m", "\u202eabc", "x" * 129]


@pytest.mark.parametrize("text", STRANGE)
def test_names_that_mean_something_else_elsewhere_are_none(text: str) -> None:
    assert not is_name(text)
    assert is_name(name_from(text))


@pytest.mark.parametrize("text", ["north", "client-0000", "ward_3@north.example.org", "7", "x" * 128])
def test_names(text: str) -> None:
    assert is_name(text)
