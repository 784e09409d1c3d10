"""The token of a call, as both services read it."""

import pytest

from fedbbpt.errors import Unauthenticated
from fedbbpt.identity.tokens_file import token_digest
from fedbbpt.wire.tokens import shown_token


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_written_in_any_case(scheme: str) -> None:
    assert shown_token([("other", "x"), ("authorization", f"{scheme} a token")]) == token_digest("a token")


def test_a_call_without_the_metadata_shows_none() -> None:
    assert shown_token([]) is None and shown_token(None) is None


@pytest.mark.parametrize("values", [["Basic a"], ["a"], ["Bearer "], ["Bearer a", "Bearer a"], [b"\xff"], [""]])
def test_anything_else_is_refused(values: list[str | bytes]) -> None:
    with pytest.raises(Unauthenticated):
        shown_token([("authorization", value) for value in values])
