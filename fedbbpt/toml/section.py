"""What all tables of a job file are made of."""

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """Frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def contradiction(key: str, what: str, fix: str) -> PydanticCustomError:
    """Between `key` of a section and another; a validator of that section raises it."""
    return PydanticCustomError("contradiction", "{what}", {"key": key, "what": what, "fix": fix})
