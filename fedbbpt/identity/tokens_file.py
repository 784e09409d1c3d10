"""The tokens file: one line `NAME ROLE SHA256` for each bearer token. Only digests are kept.

Tokens have 256 random bits, so a digest without salt cannot be reversed by guessing, and comparing digests takes no
time that tells about a token. A service reads the file again when it changes.
"""

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbbpt.errors import InvalidInput, reason
from fedbbpt.host.files import atomic_write
from fedbbpt.identity.names import check_name
from fedbbpt.identity.roles import Role, role_of

TOKEN_BYTES = 32
TOKENS_EACH = 2
"""How many tokens of one name and role are valid at a time: the newest, and the one that it replaces."""

_DIGEST = re.compile("[0-9a-f]{64}")
_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token: its member's name and role, and its SHA-256, hexadecimal."""

    name: str
    role: Role
    sha256: str

    def __str__(self) -> str:
        """Returns the token's line in a tokens file."""
        return f"{self.name} {self.role} {self.sha256}"


def token_digest(token: str) -> str:
    """Returns the SHA-256 of a token, hexadecimal."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def parse_token(line: str, where: str) -> Token:
    """Returns the token of a line. Raises InvalidInput, which never quotes the line: it may hold a token itself."""
    words = line.split()
    if len(words) != 3 or not _DIGEST.fullmatch(words[2]):
        fix = "a line NAME ROLE SHA256, as `fedbbpt admin token` writes it"
        raise InvalidInput("not a line of a tokens file", where=where, fix=fix)
    check_name(words[0], where)
    if (role := role_of(words[1])) is None:
        raise InvalidInput(f"no role {words[1]!r}", where=where, fix=", ".join(Role))
    return Token(words[0], role, words[2])


def parse_tokens(lines: Iterable[str], where: str) -> list[Token]:
    """Returns the tokens of the lines; blank lines and those that begin with # are ignored. Raises InvalidInput."""
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    found = [parse_token(line, f"{where}:{n}") for n, line in numbered if line and not line.startswith("#")]
    digests = Counter(token.sha256 for token in found)
    if twice := [token.name for token in found if digests[token.sha256] > 1]:
        what = f"{' and '.join(dict.fromkeys(twice))}: two lines have the same token"
        raise InvalidInput(what, where=where, fix="a token of its own for each member and role")
    return found


def read_tokens(path: Path) -> list[Token]:
    """Returns the tokens of a file. Without any, the file admits nobody. Raises InvalidInput if it is unusable."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(reason(error), where=str(path), fix="a file that `fedbbpt admin token` wrote") from None
    return parse_tokens(lines, str(path))


def add_token(path: Path, name: str, role: Role) -> str:
    """Adds a new token of the member to the file, and returns it. It is stored nowhere else.

    The member's token before stays valid until the next one is added, so that there is time to hand the new one over.
    Raises InvalidInput.
    """
    check_name(name, "NAME")
    known = read_tokens(path) if path.exists() else []
    same = [token for token in known if (token.name, token.role) == (name, role)]
    made = secrets.token_urlsafe(TOKEN_BYTES)
    kept = [token for token in known if token not in same[: -(TOKENS_EACH - 1)]]
    write_tokens(path, [*kept, Token(name, role, token_digest(made))])
    return made


def remove_tokens(path: Path, name: str) -> int:
    """Removes all tokens of the member from the file, and returns how many there were. Raises InvalidInput."""
    known = read_tokens(path)
    kept = [token for token in known if token.name != name]
    write_tokens(path, kept)
    return len(known) - len(kept)


def write_tokens(path: Path, tokens: Sequence[Token]) -> None:
    """Replaces the file, at once, by one that only its user can read."""
    atomic_write(path, "".join(f"{token}\n" for token in tokens), mode=_OWNER_ONLY)
