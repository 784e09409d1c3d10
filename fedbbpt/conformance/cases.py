"""Cases as they stand in cases/*.toml: a file is a profile, a table is a case.

A case has a claim, for people, and either `calls` or a `relation`. All other keys say on what it is tried, and where it
does not apply.
"""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from fedbbpt.errors import InvalidInput
from fedbbpt.toml.section import Section, contradiction
from fedbbpt.types import Output, PromptKind

Caller: TypeAlias = Literal["tenant", "other", "nobody", "stranger"]
"""Who calls: the tenant whose token the kit was given, another tenant, one without a token, one with a wrong token."""
Fault: TypeAlias = Literal["nan", "infinite", "short", "long", "rank", "dtype", "no-dtype", "empty", "negative", "far"]
"""What is done to a tensor of prompts: `calls.spoil`."""


class Call(Section):
    """A request that is sound but for what the other keys say, and what it has to give."""

    rpc: Literal["Describe", "RegisterTask", "RegisterExamples", "Score", "Release", "GetUsage"]
    caller: Caller = "tenant"
    inline: bool = False
    """Whether Score brings its examples."""
    prompts: int | str = 1
    """How many; numbers may be written "max_prompts + 1", with a limit of the card."""
    length: int | str | None = None
    """Of prompts, in tokens or words."""
    examples: int | str | None = None
    """How many."""
    tensor: Fault | None = None
    change: Mapping[str, Any] = Field(default_factory=dict)
    """Fields of the request by their paths, and other values for them in JSON.

    `{ repeat = "so ", times = "max_tokens" }` is a text, `{ number = "max_tokens" }` a number.
    """
    code: str = "OK"
    """The name of the status that it has to give."""
    reason: str = ""
    """Of its ErrorInfo; empty: any, or none."""


class Case(Section):
    name: str
    profile: str
    claim: str
    calls: tuple[Call, ...] = ()
    relation: str = ""
    prompts: tuple[PromptKind, ...] | Literal["any", "unoffered"] = "any"
    """Tried with the first kind that the card offers, each of these that it offers, or each that it does not offer."""
    injections: Literal["first", "each", "unoffered"] = "first"
    fresh: bool = False
    """Whether its examples are ones that the service has never seen, not even on an earlier run of the kit."""
    outputs: tuple[Output, ...] = tuple(Output)
    """Applies where the service answers so."""
    inputs: Literal["text", "image", "any"] = "any"
    needs: tuple[Literal["token", "other", "labels"], ...] = ()
    """A token, a second tenant's token, a card that names the classes."""

    @model_validator(mode="after")
    def _one_content(self) -> "Case":
        if bool(self.calls) == bool(self.relation):
            raise contradiction("calls", "a case has either calls or a relation", "one of them")
        return self


def profiles() -> tuple[str, ...]:
    return tuple(sorted(file.name.removesuffix(".toml") for file in _files()))


def read(wanted: Sequence[str]) -> tuple[Case, ...]:
    """The cases of these profiles, in the order of the files. Raises InvalidInput."""
    known = {file.name.removesuffix(".toml"): file for file in _files()}
    found: list[Case] = []
    for profile in wanted:
        if profile not in known:
            raise InvalidInput(f"{profile!r} is unknown", where="--profile", fix=f"one of {', '.join(sorted(known))}")
        tables = tomllib.loads(known[profile].read_text(encoding="utf-8"))
        found += [Case(name=f"{profile}/{name}", profile=profile, **table) for name, table in tables.items()]
    return tuple(found)


def _files() -> Sequence[Any]:
    return [file for file in resources.files(__package__).joinpath("cases").iterdir() if file.name.endswith(".toml")]
