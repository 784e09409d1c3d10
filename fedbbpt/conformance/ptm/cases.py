"""Reads the cases in cases/*.toml: each file is a profile, each table a case.

A case has a claim, for people, and either `calls` or a `relation`. The other keys say which prompts and examples it is
tried with, and to which services it applies.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from fedbbpt.conformance import case_files
from fedbbpt.conformance.case_files import CaseOfAKit
from fedbbpt.toml.section import Section, contradiction
from fedbbpt.types import Output, PromptKind

Caller: TypeAlias = Literal["tenant", "other", "nobody", "stranger"]
"""The caller: the tenant whose token the kit was given, a second tenant, or a caller with no token or a wrong one."""
Fault: TypeAlias = Literal["nan", "infinite", "short", "long", "rank", "dtype", "no-dtype", "empty", "negative", "far"]
"""How a tensor of prompts is corrupted, see `calls.corrupted`."""


class Call(Section):
    """A request, valid except for the changes that its keys make, and the status that it must return."""

    rpc: Literal["Describe", "RegisterTask", "RegisterExamples", "Score", "Release", "GetUsage"]
    caller: Caller = "tenant"
    inline: bool = False
    """Whether Score carries its examples, instead of a handle."""
    prompts: int | str = 1
    """Number of prompts. A number may name one of the card's limits, as in "max_prompts + 1"."""
    length: int | str | None = None
    """Length of each prompt, in tokens or words."""
    examples: int | str | None = None
    """Number of examples."""
    tensor: Fault | None = None
    change: Mapping[str, Any] = Field(default_factory=dict)
    """New values in JSON for fields of the request, by the fields' paths.

    `{ repeat = "so ", times = "max_tokens" }` is a text, `{ number = "max_tokens" }` a number.
    """
    code: str = "OK"
    """Name of the gRPC status code that the call must return."""
    reason: str = ""
    """Reason that the status's ErrorInfo must name. Empty: any reason, or none."""


class Case(CaseOfAKit):
    """One claim about a service, and how it is tested."""

    calls: tuple[Call, ...] = ()
    relation: str = ""
    prompts: tuple[PromptKind, ...] | Literal["any", "unoffered"] = "any"
    """Kinds of prompts to try: the first that the card lists, each of these that it lists, or each that it does not."""
    injections: Literal["first", "each", "unoffered"] = "first"
    fresh: bool = False
    """Whether the examples must be new to the service, even if the kit has been run before."""
    outputs: tuple[Output, ...] = tuple(Output)
    """Outputs of a service to which the case applies."""
    inputs: Literal["text", "image", "any"] = "any"
    needs: tuple[Literal["token", "other", "labels"], ...] = ()
    """Needed for the case: a token, a second tenant's token, or a card that lists class labels."""

    @model_validator(mode="after")
    def _one_content(self) -> "Case":
        if bool(self.calls) == bool(self.relation):
            raise contradiction("calls", "a case has either calls or a relation", "one of the two")
        return self


def profiles() -> tuple[str, ...]:
    """Returns the names of all profiles."""
    return case_files.profiles(__package__)


def read(wanted: Sequence[str]) -> tuple[Case, ...]:
    """Returns the cases of these profiles, in the files' order. Raises InvalidInput for an unknown profile."""
    return case_files.read(__package__, Case, wanted)
