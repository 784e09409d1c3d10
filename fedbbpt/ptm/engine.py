"""The PTM service without a network: checks, policies, metering and audit around one backend.

The same engine answers calls in this process (`ptm.local`) and over gRPC (`ptm.service`). Every method names the tenant
that asks, because all tasks, examples, budgets and usage belong to one tenant.

Calls of one tenant must not run in several threads at once. Only `Scoring.run` may.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import BudgetSpent, InvalidInput, InvalidTensor, MessageTooLarge, StoreError
from fedbbpt.host.audit import AuditLog, Record, read_audit, record_refusal
from fedbbpt.interfaces import Backend
from fedbbpt.limits import ENVELOPE_BYTES
from fedbbpt.ptm.registration import Registration
from fedbbpt.ptm.scoring import Scoring
from fedbbpt.ptm.tenants import policy
from fedbbpt.ptm.tenants.accounts import Reservation
from fedbbpt.ptm.tenants.handles import RegisteredExamples
from fedbbpt.ptm.tenants.state import Quotas, TenantState
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.tasks.bounds import pessimistic
from fedbbpt.types import (
    Budget,
    Examples,
    ExampleSet,
    ExamplesHandle,
    ModelCard,
    Output,
    Perturbation,
    Prompts,
    Scored,
    TaskSpec,
    Usage,
)
from fedbbpt.types.call_sizes import SCORE_BYTES
from fedbbpt.types.digests import digest

log = logging.getLogger(__name__)

FIXED_KEYS = ("output", "min_examples", "overlaps")
"""Keys of an agreement that decide which examples a tenant may register, and so hold as long as they are kept."""


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """An admitted call: run the micro-batches of `scoring`, then call `Engine.finish`, or `Engine.cancel` instead."""

    scoring: Scoring
    state: TenantState
    reservation: Reservation
    prompts_digest: str
    charged_queries: int = 0
    """Queries that an earlier attempt at this call was charged for."""

    @property
    def examples_id(self) -> str:
        """The handle of the call's examples."""
        return self.scoring.examples.id


class Engine:
    """Answers the calls of all tenants of one backend."""

    def __init__(
        self,
        backend: Backend[Any],
        clock: Callable[[], float],
        quotas: Quotas | None = None,
        *,
        tenants: Iterable[Tenant] = (),
        audit_file: Path | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Creates an engine; with an `audit_file`, `tenants` keep the usage that the file records.

        Args:
            clock: Returns seconds, from any origin.
            quotas: Limits of the state that is kept for each tenant.
            tenants: Tenants known at the start; others are added when they first ask.
            audit_file: The audit log; None keeps none.
            wall_clock: Returns seconds since 1970.

        Raises:
            StoreLocked, AuditBroken, StoreError: The audit log cannot be used; see `AuditLog`.
        """
        self._backend = backend
        self._card = backend.describe()
        self._clock = clock
        self._quotas = quotas or Quotas()
        self._states = {tenant.name: self._new_state(tenant) for tenant in tenants}
        self._audit_file = audit_file
        self._audit = AuditLog(audit_file, wall_clock, self._restore)
        self._registration = Registration(backend, self._audit, clock)

    def close(self) -> None:
        """Closes the audit log, so that another service can open it."""
        if self._audit.head.count:
            log.info("the audit log ends with record %s", self._audit.head)
        self._audit.close()

    @property
    def time_to_live_seconds(self) -> float:
        """Seconds that registered examples are kept after their last use."""
        return self._quotas.time_to_live_seconds

    @property
    def threads(self) -> int:
        """Number of micro-batches to run at the same time."""
        return self._backend.threads

    def _new_state(self, tenant: Tenant) -> TenantState:
        return TenantState.create(tenant, self._card, self._backend.hidden_size, self._quotas)

    def _restore(self, record: Record) -> None:
        if state := self._states.get(record["tenant"]):
            state.account.restore(record)

    def _state(self, tenant: Tenant) -> TenantState:
        if tenant.name not in self._states:
            self._states[tenant.name] = self._new_state(tenant)
        return self._states[tenant.name]

    def check_change(self, tenants: Iterable[Tenant]) -> None:
        """Raises InvalidInput if `adopt` cannot change a tenant's agreement to the new one while the service runs."""
        for tenant in tenants:
            state = self._states.get(tenant.name)
            fixed = [key for key in FIXED_KEYS if state and getattr(state.tenant, key) != getattr(tenant, key)]
            if fixed:
                what, fix = f"{fixed[0]} cannot change while the service runs", "start the service again"
                raise InvalidInput(what, where=f"tenant {tenant.name!r}", fix=fix)

    def adopt(self, tenant: Tenant) -> None:
        """Changes a tenant's agreement, or adds a tenant, with the usage that the audit log records of it.

        Raises AuditBroken, InvalidInput.
        """
        if tenant.name in self._states:
            self._states[tenant.name].adopt(self._new_state(tenant))
            return
        state = self._new_state(tenant)
        for record in read_audit(self._audit_file) if self._audit_file else ():
            if record["tenant"] == tenant.name:
                state.account.restore(record)
        self._states[tenant.name] = state

    def describe(self, *, tenant: Tenant) -> ModelCard:
        """Returns the model's card as the tenant sees it."""
        return self._state(tenant).card

    def register_task(self, task: TaskSpec, *, tenant: Tenant) -> str:
        """Returns the task's id. Raises what `Registration.register_task` raises."""
        return self._registration.register_task(self._state(tenant), task)

    def label_tokens(self, task: TaskSpec) -> tuple[int, ...]:
        """Returns the number of label tokens of each class. Raises InvalidTask."""
        return tuple(map(len, self._backend.columns(task)))

    def register_examples(
        self,
        task_id: str,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None = None,
        labels: npt.NDArray[np.int64] | None = None,
        *,
        tenant: Tenant,
    ) -> ExamplesHandle:
        """Returns the examples' handle. Raises what `Registration.register_examples` raises."""
        example_set = ExampleSet(examples, prompt_tokens, perturbation, labels)
        registered, known = self._registration.register_examples(self._state(tenant), task_id, example_set)
        if known:
            registered.registrations += 1
        return ExamplesHandle(registered.id, len(registered.rows), registered.tokens, registered.truncation)

    def examples(self, examples_id: str, *, tenant: Tenant) -> RegisteredExamples:
        """Returns the examples of a handle, and counts that as a use. Raises UnknownExamples."""
        return self._state(tenant).handles.get(examples_id, self._clock())

    def begin(
        self,
        examples: str | RegisteredExamples | tuple[TaskSpec, ExampleSet],
        prompts: Prompts,
        *,
        tenant: Tenant,
        fresh: bool = False,
        charged_queries: int = 0,
    ) -> ScoreCall:
        """Admits a call: checks it, plans its micro-batches, and reserves the most that they may cost.

        Args:
            examples: A handle, what `examples` returned for it, or a task with the examples.
            prompts: The P prompts to score.
            tenant: The tenant that asks.
            fresh: Whether the model computes every pair, even cached and repeated ones.
            charged_queries: Queries that an earlier attempt at the same call was charged for.

        Raises:
            UnknownExamples: The handle is unknown.
            UnsupportedPrompt, InvalidTensor, PromptTooLong: The model cannot take the prompts.
            MessageTooLarge: No message could hold the answer.
            PolicyForbids: The tenant's policy forbids the prompts.
            BudgetSpent, RateLimited: The tenant's budget or rate does not allow the call.
            FedbbptError: What registering the examples raises, if they come with the call.
        """
        state = self._state(tenant)
        prompts.check(state.card)
        policy.check_pictures(tenant, prompts)
        if isinstance(examples, str):
            registered = state.handles.get(examples, self._clock())
        elif isinstance(examples, RegisteredExamples):
            registered = examples
        else:
            task_id = self._registration.register_task(state, examples[0])
            registered, _ = self._registration.register_examples(state, task_id, examples[1])
        pairs = len(prompts) * len(registered.rows)
        if pairs > state.card.max_pairs:
            fix = f"at most {state.card.max_pairs} in one call"
            raise InvalidTensor(f"{pairs} pairs of a prompt and an example", where="prompts", fix=fix)
        self._check_answer_size(pairs * len(registered.task.classes))
        prompt_digests = prompts.digests()
        task_prefix = bytes.fromhex(registered.task_id)
        prompts_digest = digest(*prompt_digests.ravel().tolist()).hex()
        try:
            state.account.check(max(0, pairs - charged_queries), self._clock())
            scoring = Scoring(
                self._backend, registered, prompts, prompt_digests, task_prefix, state.cache, self._clock, fresh=fresh
            )
            charged_queries = min(charged_queries, scoring.known_queries)
            reservation = state.account.reserve(scoring.queries - charged_queries, scoring.tokens, self._clock())
        except BudgetSpent as error:
            record_refusal(
                self._audit.append,
                tenant.name,
                error,
                task=registered.task_id,
                examples=registered.id,
                prompts=prompts_digest,
            )
            raise
        return ScoreCall(scoring, state, reservation, prompts_digest, charged_queries)

    def _check_answer_size(self, scores: int) -> None:
        size = SCORE_BYTES * scores
        if size > self._card.max_message_bytes - ENVELOPE_BYTES:
            raise MessageTooLarge(f"{size} bytes of scores", where="prompts", fix="fewer prompts in one call")

    def finish(self, call: ScoreCall) -> Scored:
        """Charges for a call whose micro-batches have all run, and returns its answer.

        Raises:
            InvalidTensor: Scores are not finite. The call is charged for.
            ScoreUnavailable: For most pairs, all scores are bounds. The call is charged for.
            StoreError: The audit log cannot be written. Nothing is charged or cached.
        """
        state, scoring = call.state, call.scoring
        problem = scoring.problem()
        usage = self._settle(call, type(problem).__name__ if problem else "ok")
        if problem:
            raise problem
        scores, bounds = scoring.scores(), scoring.bounds()
        output, labels = state.tenant.output, scoring.examples.labels
        if output is Output.LOSS_ONLY and labels is not None:
            scores = pessimistic(scores, bounds, labels)
        answer, marks = policy.answer(output, scores, labels), policy.marks(output, scores, bounds)
        return Scored(output, answer, self._card.revision, usage, state.account.budget(), marks)

    def cancel(self, call: ScoreCall) -> Usage:
        """Ends a call whose caller has gone away. Charges for the pairs that were computed, which stay in the cache."""
        return self._settle(call, "given up")

    def _settle(self, call: ScoreCall, status: str) -> Usage:
        """Records the call first: what cannot be recorded is neither charged nor cached."""
        scoring, state = call.scoring, call.state
        usage = scoring.usage()
        # Pairs for which an earlier attempt was charged, and which are cached since then, are not charged again.
        charged = min(call.charged_queries, usage.cached_queries)
        if charged:
            usage = replace(usage, queries=usage.queries - charged, cached_queries=usage.cached_queries - charged)
        usage = state.account.priced(usage)
        task_id = scoring.examples.task_id
        try:
            self._audit.append(
                "score",
                state.tenant.name,
                task=task_id,
                examples=scoring.examples.id,
                prompts=call.prompts_digest,
                output=state.tenant.output,
                revision=self._card.revision,
                queries=usage.queries,
                cached_queries=usage.cached_queries,
                tokens=usage.tokens,
                compute_seconds=round(usage.compute_seconds, 6),
                cost_micros=usage.cost_micros,
                status=status,
            )
        except StoreError:
            state.account.settle(call.reservation, task_id, Usage())
            raise
        scoring.keep(state.cache)
        state.account.settle(call.reservation, task_id, usage)
        return usage

    def release(self, examples_id: str, *, tenant: Tenant) -> None:
        """Takes back one registration of the examples. An unknown handle is no error."""
        self._state(tenant).handles.release(examples_id)

    def usage(self, *, tenant: Tenant) -> Usage:
        """Returns the tenant's total usage."""
        return self._state(tenant).account.usage

    def tasks_usage(self, *, tenant: Tenant) -> Mapping[str, Usage]:
        """Returns the tenant's usage by task id."""
        return self._state(tenant).account.tasks

    def budget(self, *, tenant: Tenant) -> Budget:
        """Returns the tenant's remaining budget."""
        return self._state(tenant).account.budget()

    def drop_expired(self, *, tenant: Tenant) -> None:
        """Drops the tenant's expired examples."""
        self._state(tenant).handles.drop_expired(self._clock())

    def handles(self, *, tenant: Tenant) -> int:
        """Returns how many handles of the tenant have not expired."""
        self.drop_expired(tenant=tenant)
        return len(self._state(tenant).handles)

    @property
    def kept_bytes(self) -> int:
        """Estimated memory of all tenants' examples."""
        return sum(state.handles.bytes for state in list(self._states.values()))
