"""Gives a case its tools: callers of the service, valid inputs, and calls whose answers are checked strictly."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from fedbbpt.conformance.ptm.cases import Caller
from fedbbpt.conformance.ptm.inputs import Inputs
from fedbbpt.conformance.ptm.target import Refused, Target
from fedbbpt.conformance.results import Broken, Skipped
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import (
    Array,
    ExampleSet,
    Injection,
    ModelCard,
    Output,
    Perturbation,
    PromptKind,
    Prompts,
    Scored,
    TaskSpec,
)
from fedbbpt.wire.messages import ptm_messages

PROMPTS = 4
"""Number of prompts that a relation uses by default."""
TOLERANCE, RELATIVE_TOLERANCE = 1e-5, 1e-6
NOISE_TOLERANCE = 10.0
"""Allowed difference in units of the card's score_noise, a standard deviation. Some hundred numbers are compared."""
FLIPS = 0.1
"""Share of choices that noise may change."""

Handle: TypeAlias = str | tuple[TaskSpec, ExampleSet]
"""A handle of registered examples, or a task and examples that are sent inline."""


@dataclass(frozen=True, slots=True)
class Answer(Scored):
    """The scores of a call, the handle that the response names, and the response itself."""

    examples_id: str = ""
    response: Any = None


@dataclass(frozen=True, slots=True)
class Tenant:
    """A caller with a token, the card that the service shows it, and inputs that fit the card."""

    target: Target
    card: ModelCard
    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Trial:
    """One case, tried with one kind of prompt. Methods raise Broken, Skipped, target.Refused or a FedbbptError."""

    callers: dict[Caller, Target]
    me: Tenant
    other: Tenant | None
    name: str
    """Name of the case and kind. It seeds the prompts, so that no case is answered from the cache of another."""
    kind: PromptKind
    injection: Injection
    fresh: int = 0
    """Number of the first row of examples, above 0 if they must be new to the service."""
    registered: list[tuple[Target, str]] = field(default_factory=list)
    """Handles to release at the end, with the caller that got them."""

    @property
    def card(self) -> ModelCard:
        """The service's card."""
        return self.me.card

    @property
    def rows(self) -> list[int]:
        """The rows of examples that the case uses."""
        return [self.fresh + row for row in self.me.inputs.rows()]

    def as_other(self) -> "Trial":
        """Returns the same trial as the second tenant. Raises Skipped if there is none."""
        if self.other is None:
            raise Skipped("needs --other-token-file")
        return replace(self, me=self.other, other=self.me)

    def prompts(self, count: int = PROMPTS, *, seed: str = "", kind: PromptKind | None = None) -> Prompts:
        """Returns `count` prompts, or as many as the card allows in a call."""
        count = min(count, self.card.max_prompts)
        kind = kind or self.kind
        return self.me.inputs.prompts(kind, count, seed=f"{self.name} {seed}", injection=self.injection)

    def call(self, rpc: str, request: Any) -> Any:
        """Makes a call as this tenant. Raises Refused."""
        return self.me.target.call(rpc, request)

    def register(self, task: TaskSpec, examples: ExampleSet) -> str:
        """Registers a task and examples, and returns the handle."""
        task_id = self.call("RegisterTask", ptm_messages.register_task_request(task)).task_id
        response = self.call("RegisterExamples", ptm_messages.register_examples_request(task_id, examples))
        if response.count != len(examples):
            raise Broken(f"RegisterExamples reports {response.count} examples instead of {len(examples)}")
        self.remember(response.examples_id)
        return str(response.examples_id)

    def remember(self, handle: str) -> None:
        """Remembers a handle to release at the end."""
        self.registered.append((self.me.target, handle))

    def release_all(self) -> None:
        """Releases all remembered handles, as far as the service allows it."""
        for target, handle in self.registered:
            with suppress(Refused):
                target.call("Release", pb.ReleaseRequest(examples_id=handle))
        self.registered.clear()

    def ask(
        self,
        prompts: Prompts,
        rows: Sequence[int] | None = None,
        *,
        twin: bool = False,
        turned: int = 0,
        inline: bool = False,
        perturbation: Perturbation | None = None,
    ) -> Answer:
        """Scores prompts on rows of examples, all rows by default.

        Args:
            twin: whether to use the twin of the task, see `inputs.Inputs.task`.
            turned: how many classes move from the front to the end.
            inline: whether the examples are sent inline instead of registered.
        """
        task = self.me.inputs.task(twin=twin, turned=turned)
        chosen = self.rows if rows is None else rows
        examples = self.me.inputs.examples(chosen, turned=turned, perturbation=perturbation)
        handle: Handle = (task, examples) if inline else self.register(task, examples)
        return self.score(handle, prompts, len(chosen))

    def score(self, handle: Handle, prompts: Prompts, rows: int, key: str = "") -> Answer:
        """Scores prompts. Raises Broken if the answer has the wrong shape."""
        response = self.call("Score", ptm_messages.score_request(handle, prompts, key))
        scored = ptm_messages.scored(response, self.card.output)
        ranks = (len(prompts), rows, len(self.me.inputs.task().classes))
        if scored.answer.shape != ranks[: scored.answer.ndim]:
            raise Broken(f"the answer has shape {scored.answer.shape} instead of {ranks[: scored.answer.ndim]}")
        if not isinstance(handle, str):
            self.remember(response.examples_id)
        return Answer(
            scored.output,
            scored.answer,
            scored.revision,
            scored.usage,
            scored.budget,
            scored.bounds,
            response.examples_id,
            response,
        )

    def usage(self) -> pb.GetUsageResponse:
        """Returns what GetUsage reports to this tenant."""
        found: pb.GetUsageResponse = self.call("GetUsage", pb.GetUsageRequest())
        return found

    def require_same(self, found: Array, wanted: Array, what: str, *, tolerance: float = TOLERANCE) -> None:
        """Raises Broken if the answers differ by more than float32 or the card's score_noise explains."""
        if self.card.output is Output.LABEL_ARGMAX:
            flipped = float((found != wanted).mean())
            if flipped > (FLIPS if self.card.score_noise else 0.0):
                raise Broken(f"{what}: {flipped:.0%} of the classes differ")
            return
        allowed = max(tolerance, NOISE_TOLERANCE * self.card.score_noise)
        allowed += RELATIVE_TOLERANCE * float(np.abs(wanted).max())
        apart = float(np.abs(found - wanted).max())
        if not apart <= allowed:
            raise Broken(f"{what}: {self.card.output} differ by up to {apart:.3g}, and {allowed:.2g} is allowed")

    def require_scores_of_rows(self) -> None:
        """Raises Skipped if the service answers with losses."""
        if self.card.output is Output.LOSS_ONLY:
            raise Skipped("a loss covers all examples together")
