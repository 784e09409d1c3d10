"""Describes the cases in cases/*.toml: what the mock coordinator and the fake PTM do, and how the run ends."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from fedbbpt import errors
from fedbbpt.conformance import case_files
from fedbbpt.conformance.case_files import CaseOfAKit
from fedbbpt.toml.section import Section, contradiction

DEFAULT = ("core", "fed-cma")
"""The profiles that are played by default."""

Action: TypeAlias = Literal["fail", "break", "kill", "restart", "forget", "hold", "silence", "evict"]
"""What happens at a fault.

fail: the call ends with the error. break: the stream of tasks ends with the error, and the call is answered.
kill: the client is killed and started again. restart: the coordinator stops, and starts again without its sessions.
forget: the PTM service forgets all handles. hold: the call is answered after two heartbeats of the client.
silence: the coordinator sends nothing more on this stream. evict: as fail, and the session is no longer valid.
"""


class Fault(Section):
    """Something that goes wrong, once or several times."""

    at: Literal["join", "open", "idle", "update", "score", "describe"]
    """The call that it happens in: Join, the opening of a stream of tasks, an update, or a call of the PTM service;
    idle: before the round's task."""
    action: Action = "fail"
    error: str = ""
    """The name of the error, with `fail` and `break`."""
    times: int = Field(1, ge=1)
    counted: bool = False
    """Whether the coordinator had counted the update before the fault."""

    @model_validator(mode="after")
    def _known_error(self) -> "Fault":
        if (self.action in ("fail", "break")) != bool(self.error):
            raise contradiction("error", "an error belongs to fail and break", "both, or neither")
        if self.error and not hasattr(errors, self.error):
            raise contradiction("error", f"there is no error {self.error}", "a name in fedbbpt.errors")
        return self

    def raised(self) -> errors.FedbbptError:
        """Returns the error to raise."""
        if self.action == "evict":
            return errors.SessionEvicted("this client has joined again", where="session", fix="one process")
        kind: type[errors.FedbbptError] = getattr(errors, self.error)
        return kind("by the conformance kit", where="conformance", fix="what docs/protocol.md says")


class Round(Section):
    """One task for the client."""

    phase: Literal["update", "evaluate"] = "update"
    receipt: Literal["counted", "duplicate", "too-late", "refused"] = "counted"
    faults: tuple[Fault, ...] = ()
    chunk_bytes: int = Field(0, ge=0)
    """The length of the chunks in which the task's arrays travel; 0: in the header."""
    corrupt: bool = False
    """Whether the first copy of the task's arrays differs from its checksum."""
    finalists: int = Field(0, ge=0)
    """Number of prompts in the array `finalists`."""
    limit: bool = False
    """Whether a task of fed-bpt has the array `limit`."""
    readouts: int = Field(1, ge=1)
    """R, of a task of fed-readout."""
    prompted: bool = False
    """Whether the readouts of such a task use the scores under the prompt."""
    whole: bool = False
    """Whether such a task has the array `whole`."""
    heartbeats: int = Field(0, ge=0)
    """How many heartbeats of the client the coordinator awaits before the task."""


class Case(CaseOfAKit):
    """One claim about a client, and the run that shows it."""

    run: str = "ranks"
    """The name of the run in runs.toml."""
    change: Mapping[str, Any] = Field(default_factory=dict)
    """New values in JSON for fields of the JoinResponse, by their paths."""
    card: Mapping[str, Any] = Field(default_factory=dict)
    """New values in JSON for fields of the DescribeResponse."""
    scores: Literal["any", "ties", "large"] = "any"
    """ties: scores are whole numbers, so that many are equal. large: so large that float32 shows what was rounded."""
    faults: tuple[Fault, ...] = ()
    """Those before the first round."""
    rounds: tuple[Round, ...] = ()
    ends: Literal["finished", "stopped", "by-itself"] = "finished"
    """How the run ends; by-itself: a fault ends the client."""
    succeeds: bool | None = None
    """Whether the client's exit code must be 0; None: if the run ends."""
    joins: int | None = None
    """Number of times that the client joins successfully. None: any."""

    @property
    def codecs(self) -> tuple[str, ...]:
        """The codec that the case needs the client to have."""
        return tuple(self.change.get("codec", ()))


def profiles() -> tuple[str, ...]:
    """Returns the names of all profiles."""
    return case_files.profiles(__package__)


def read(wanted: Sequence[str]) -> tuple[Case, ...]:
    """Returns the cases of these profiles, in the files' order. Raises InvalidInput for an unknown profile."""
    return case_files.read(__package__, Case, wanted)
