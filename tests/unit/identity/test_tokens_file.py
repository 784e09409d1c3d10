"""Tokens files: names, roles and digests, and how tokens are renewed and taken away."""

from pathlib import Path

import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, add_token, parse_tokens, read_tokens, remove_tokens, token_digest

DIGEST = "a" * 64


def test_a_new_token_is_kept_as_its_digest_in_a_file_of_its_user(tmp_path: Path) -> None:
    made = add_token(tmp_path / "tokens", "north", Role.OBSERVER)
    assert read_tokens(tmp_path / "tokens") == [Token("north", Role.OBSERVER, token_digest(made))]
    assert made not in (tmp_path / "tokens").read_text()
    assert (tmp_path / "tokens").stat().st_mode & 0o077 == 0


def test_a_members_token_before_stays_valid_until_the_next_but_one(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    other = token_digest(add_token(path, "south", Role.CLIENT))
    first, second, third = (token_digest(add_token(path, "north", Role.CLIENT)) for _ in range(3))
    assert [token.sha256 for token in read_tokens(path)] == [other, second, third] and first != second
    assert remove_tokens(path, "north") == 2 and remove_tokens(path, "south") == 1
    assert read_tokens(path) == [], "a file without tokens admits nobody"


def test_comments_and_blank_lines_are_ignored() -> None:
    assert parse_tokens(["# ours", "", f" north  client {DIGEST} "], "x") == [Token("north", Role.CLIENT, DIGEST)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["north client"], "x:1: not a line of a tokens file; a line NAME ROLE SHA256"),
        (["", "a-secret-token"], "x:2: not a line"),
        ([f"north root {DIGEST}"], "x:1: no role 'root'; client, owner, operator, observer"),
        ([f"../north client {DIGEST}"], "x:1: '../north' is not a name; 1 to 128 letters"),
        ([f"north client {DIGEST}", f"south client {DIGEST}"], "north and south: two lines have the same token"),
    ],
)
def test_other_lines_are_refused_without_quoting_a_token(lines: list[str], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_tokens(lines, "x")
    assert message in str(caught.value) and "a-secret-token" not in str(caught.value)
