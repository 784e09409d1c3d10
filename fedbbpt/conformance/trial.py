"""What a case sees: a service as a tenant, sound inputs for it, and a way to ask that reads answers strictly."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from fedbbpt.conformance.cases import Caller
from fedbbpt.conformance.inputs import Inputs, count
from fedbbpt.conformance.target import Refused, Target
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
"""That a relation asks with."""
TOLERANCE, RELATIVE_TOLERANCE = 1e-5, 1e-6
NOISE_TOLERANCE = 10.0
"""In the card's score_noise, which is a standard deviation: some hundred numbers are compared."""
FLIPS = 0.1
"""The share of choices that noise may turn."""

Handle: TypeAlias = str | tuple[TaskSpec, ExampleSet]


class Broken(Exception):
    """The claim does not hold."""


class Skipped(Exception):
    """The case does not apply to this service."""


@dataclass(frozen=True, slots=True)
class Answer(Scored):
    """With the handle that it names, and all of it as it came."""

    examples_id: str = ""
    response: Any = None


@dataclass(frozen=True, slots=True)
class Tenant:
    """A caller, and what the service says of itself to it."""

    target: Target
    card: ModelCard
    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Trial:
    """One case with one kind of prompt. Whatever fails raises Broken, Skipped, target.Refused or a FedbbptError."""

    callers: dict[Caller, Target]
    me: Tenant
    other: Tenant | None
    name: str
    """Of the case: prompts are drawn from it, so that no case is answered from the memory of another's."""
    kind: PromptKind
    injection: Injection
    fresh: int = 0
    """The first of its rows."""
    registered: list[tuple[Target, str]] = field(default_factory=list)
    """Handles that were given out, and to whom."""

    @property
    def card(self) -> ModelCard:
        return self.me.card

    @property
    def rows(self) -> list[int]:
        """Which it asks about."""
        return [self.fresh + row for row in self.me.inputs.rows()]

    def as_other(self) -> "Trial":
        """The same case of the second tenant."""
        if self.other is None:
            raise Skipped("needs --other-token-file")
        return replace(self, me=self.other, other=self.me)

    def prompts(self, count: int = PROMPTS, *, seed: str = "", kind: PromptKind | None = None) -> Prompts:
        count = min(count, self.card.max_prompts)
        kind = kind or self.kind
        return self.me.inputs.prompts(kind, count, seed=f"{self.name} {seed}", injection=self.injection)

    def call(self, rpc: str, request: Any) -> Any:
        return self.me.target.call(rpc, request)

    def register(self, task: TaskSpec, examples: ExampleSet) -> str:
        """The handle."""
        task_id = self.call("RegisterTask", ptm_messages.register_task_request(task)).task_id
        response = self.call("RegisterExamples", ptm_messages.register_examples_request(task_id, examples))
        if response.count != len(examples):
            raise Broken(f"RegisterExamples counts {response.count} examples of {len(examples)}")
        self.note(response.examples_id)
        return str(response.examples_id)

    def note(self, handle: str) -> None:
        self.registered.append((self.me.target, handle))

    def clear(self) -> None:
        """Releases what was registered, if the service lets it."""
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
        """Registers rows (all of them by default), or sends them along, and scores."""
        task = self.me.inputs.task(twin=twin, turned=turned)
        chosen = self.rows if rows is None else rows
        examples = self.me.inputs.examples(chosen, turned=turned, perturbation=perturbation)
        handle: Handle = (task, examples) if inline else self.register(task, examples)
        return self.score(handle, prompts, len(chosen))

    def score(self, handle: Handle, prompts: Prompts, rows: int, key: str = "") -> Answer:
        """Raises Broken where the answer is of another shape than asked for."""
        response = self.call("Score", ptm_messages.score_request(handle, prompts, key))
        scored = ptm_messages.scored(response, self.card.output)
        ranks = (count(prompts), rows, len(self.me.inputs.task().classes))
        if scored.answer.shape != ranks[: scored.answer.ndim]:
            raise Broken(f"an answer of shape {scored.answer.shape}, not {ranks[: scored.answer.ndim]}")
        if not isinstance(handle, str):
            self.note(response.examples_id)
        return Answer(
            scored.output, scored.answer, scored.revision, scored.usage, scored.budget, response.examples_id, response
        )

    def usage(self) -> pb.GetUsageResponse:
        found: pb.GetUsageResponse = self.call("GetUsage", pb.GetUsageRequest())
        return found

    def same(self, found: Array, wanted: Array, what: str, *, tolerance: float = TOLERANCE) -> None:
        """Raises Broken where they differ by more than float32, or the card's noise, can explain."""
        if self.card.output is Output.LABEL_ARGMAX:
            flipped = float((found != wanted).mean())
            if flipped > (FLIPS if self.card.score_noise else 0.0):
                raise Broken(f"{what}: {flipped:.0%} of the classes differ")
            return
        allowed = max(tolerance, NOISE_TOLERANCE * self.card.score_noise)
        allowed += RELATIVE_TOLERANCE * float(np.abs(wanted).max())
        apart = float(np.abs(found - wanted).max())
        if not apart <= allowed:
            raise Broken(f"{what}: {self.card.output} apart by up to {apart:.3g}, allowed is {allowed:.2g}")

    def need_rows(self) -> None:
        if self.card.output is Output.LOSS_ONLY:
            raise Skipped("a loss is of all examples together")
