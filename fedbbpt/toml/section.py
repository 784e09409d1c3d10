"""The base class of all typed sections of a TOML file."""

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A table of a TOML file. It is frozen, and rejects unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def contradiction(key: str, what: str, fix: str) -> PydanticCustomError:
    """Returns the error that a validator of a section raises when one key contradicts another.

    Args:
        key: The key to change, relative to the section; dots separate the names of nested tables.
        what: The contradiction.
        fix: What would be right.
    """
    return PydanticCustomError("contradiction", "{what}", {"key": key, "what": what, "fix": fix})
