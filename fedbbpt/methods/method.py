"""What a method's file offers to the outside: one `Method`, gathered in `methods.METHODS`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from fedbbpt.interfaces import ClientHalf, Objectives, ServerHalf
from fedbbpt.types import MethodSettings, PromptSpace


class MethodConfig(BaseModel):
    """A method's part of a job file: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str


@dataclass(frozen=True, slots=True)
class Method:
    """One paper: how a job configures it, and its two halves."""

    name: str
    config: type[MethodConfig]
    settings_type: type[MethodSettings]
    settings: Callable[[Any], MethodSettings]
    """What clients must know of a config."""
    server: Callable[[Any, PromptSpace], ServerHalf[Any]]
    """Takes the config."""
    client: Callable[[Any, PromptSpace, Objectives], ClientHalf]
    """Takes the settings."""
