"""The names of members, which appear in paths, tables, logs and certificates."""

import re

from fedbbpt.errors import FedbbptError, InvalidInput
from fedbbpt.limits import MAX_CLIENT_ID_CHARACTERS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")

NAME_RULE = (
    f"1 to {MAX_CLIENT_ID_CHARACTERS} letters, digits, dots, underscores, hyphens and @, a letter or digit first"
)


def is_name(text: str) -> bool:
    """Returns whether the text may be a member's name."""
    return len(text) <= MAX_CLIENT_ID_CHARACTERS and _NAME.fullmatch(text) is not None


def check_name(text: str, where: str, error: type[FedbbptError] = InvalidInput) -> None:
    """Raises InvalidInput, or `error`, unless the text may be a member's name."""
    if not is_name(text):
        raise error(f"{text[:MAX_CLIENT_ID_CHARACTERS]!r} is not a name", where=where, fix=NAME_RULE)


def name_from(text: str) -> str:
    """Returns a name that resembles the text, such as that of a data file."""
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", text).lstrip("._@-")[:64] or "client"
