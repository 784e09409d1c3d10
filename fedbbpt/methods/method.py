"""What a method's file offers to the outside: one `Method`, gathered in `methods.METHODS`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedbbpt.interfaces import ClientHalf, PromptSpace, ServerHalf, WhiteBox
from fedbbpt.toml.section import Section
from fedbbpt.types import MethodSettings


class MethodConfig(Section):
    """A method's part of a job file."""

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
    client: Callable[[Any, PromptSpace, Any], ClientHalf]
    """Takes the settings, and Objectives or a WhiteBox."""
    spaces: Callable[[Any], frozenset[str]] = lambda config: frozenset({"latent"})
    """The kinds of task.prompt over which a config can search."""
    needs_scores: Callable[[Any], bool] = lambda settings: False
    """Whether clients ask their Objectives for more than losses. Takes the settings."""
    white_box: bool = False
    """Whether clients train a model of their own, in place of asking for losses."""
    owner: Callable[[Any, PromptSpace, WhiteBox], ClientHalf] | None = None
    """The half of the model's owner, where it can have a turn between two rounds. Takes the settings."""
    owner_takes_part: Callable[[Any], bool] = lambda config: False
    """Whether it does. Takes the config."""
