"""Registers tasks and examples for a tenant: checks them, applies the tenant's policy, and records them."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from fedbbpt.errors import BudgetSpent, PolicyForbids, StoreError
from fedbbpt.host.audit import AuditLog, record_refusal
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.tenants import policy
from fedbbpt.ptm.tenants.handles import RegisteredExamples
from fedbbpt.ptm.tenants.state import TenantState
from fedbbpt.types import ExampleSet, TaskSpec, Truncation
from fedbbpt.types.digests import digest


class Registration:
    """The part of the engine that fills a tenant's state. `clock` returns seconds."""

    def __init__(self, backend: Backend[Any], audit: AuditLog, clock: Callable[[], float]) -> None:
        self._backend, self._audit, self._clock = backend, audit, clock

    def register_task(self, state: TenantState, task: TaskSpec) -> str:
        """Keeps the task and returns its id, a digest of its content.

        Raises:
            InvalidTask: The model cannot score the task.
            BudgetSpent: The task has more new label tokens than the tenant has left.
            StoreError: The audit log cannot be written.
        """
        task.check()
        self._backend.check(task)
        task_id = task.id
        try:
            spent = state.account.spend_label_tokens(self._columns(task))
        except BudgetSpent as error:
            record_refusal(self._audit.append, state.tenant.name, error, task=task_id)
            raise
        if spent:
            try:
                self._audit.append("task", state.tenant.name, task=task_id, label_tokens=sorted(spent))
            except StoreError:
                state.account.refund_label_tokens(spent)
                raise
        state.keep_task(task_id, task)
        return task_id

    def _columns(self, task: TaskSpec) -> frozenset[str]:
        """Returns the different columns of all classes together."""
        return frozenset(chain.from_iterable(self._backend.columns(task)))

    def register_examples(
        self, state: TenantState, task_id: str, examples: ExampleSet
    ) -> tuple[RegisteredExamples, bool]:
        """Keeps the examples of a task, tokenised.

        Returns:
            The kept examples, and whether the tenant had registered the same ones before.

        Raises:
            UnknownTask: The task is not registered.
            InvalidExamples: The model cannot take the examples, or they exceed the tenant's quota.
            PromptTooLong: An example leaves no room for the prompt.
            PolicyForbids: The tenant's policy forbids the examples.
            Overloaded: Examples in use fill the tenant's quota.
            StoreError: The audit log cannot be written.
        """
        task, output = state.task(task_id), state.tenant.output
        examples.check(state.card)
        task.check_filled(len(examples))
        policy.check_labels(output, examples.labels, len(task.classes))
        row_digests = examples.row_digests()
        examples_id = examples.handle_id(task_id, row_digests)
        state.handles.drop_expired(self._clock())
        if examples_id in state.handles:
            return state.handles.get(examples_id, self._clock()), True
        rows = self._backend.prepare(task, examples.examples, examples.prompt_tokens, examples.perturbation)
        tokens = sum(self._backend.tokens(row) for row in rows)
        if examples.labels is not None:
            try:
                columns = digest(*sorted(self._columns(task)))
                classes = [task.classes[label] for label in examples.labels]
                read = [self._backend.identity(row) for row in rows]
                state.labels.enter(columns, policy.Row.of(task, examples.examples, read), classes)
            except PolicyForbids as error:
                record_refusal(self._audit.append, state.tenant.name, error, task=task_id, examples=examples_id)
                raise
        registered = RegisteredExamples(
            examples_id, task_id, task, rows, row_digests, examples.labels, tokens, _truncation(rows)
        )
        state.handles.make_room(registered, self._clock())
        self._audit.append(
            "examples", state.tenant.name, task=task_id, examples=examples_id, count=len(rows), tokens=tokens
        )
        state.handles.put(registered, self._clock())
        return registered, False


def _truncation(rows: Sequence[Any]) -> Truncation | None:
    """The truncated texts, if the backend's rows tell (see `Backend.prepare`)."""
    cut = [getattr(row, "cut_tokens", None) for row in rows]
    known = [tokens for tokens in cut if tokens is not None]
    return Truncation(sum(tokens > 0 for tokens in known), sum(known)) if len(known) == len(rows) else None
