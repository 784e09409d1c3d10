"""The PTM service without a network: tasks, registered examples, checks, policy, metering and audit around one backend.

The same object answers in process (simulation, tests) and behind gRPC (ptm/service). It knows its callers as tenants:
what they register and use is each one's own. One tenant's calls are not safe in several threads at once, but for the
running of a Scoring's micro-batches.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import (
    BudgetSpent,
    FedbbptError,
    InvalidTensor,
    MessageTooLarge,
    PolicyForbids,
    StoreError,
)
from fedbbpt.interfaces import Backend
from fedbbpt.ptm import digests
from fedbbpt.ptm.checks import check_examples, check_filled, check_prompts, check_task, count
from fedbbpt.ptm.scoring import Scoring
from fedbbpt.ptm.tenants import policy
from fedbbpt.ptm.tenants.accounts import Reservation
from fedbbpt.ptm.tenants.audit import AuditLog, Record
from fedbbpt.ptm.tenants.handles import Kept
from fedbbpt.ptm.tenants.registry import OWNER, Tenant
from fedbbpt.ptm.tenants.state import Limits, Tenancy
from fedbbpt.types import (
    ENVELOPE_BYTES,
    Budget,
    Examples,
    ExampleSet,
    ExamplesHandle,
    ModelCard,
    Perturbation,
    Prompts,
    Scored,
    TaskSpec,
    Usage,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """A call that was let in: its micro-batches are to be run, and then it is finished or given up."""

    scoring: Scoring
    tenancy: Tenancy
    reservation: Reservation
    prompts_digest: str
    paid: int = 0
    """Of its queries, that an attempt before was charged for."""

    @property
    def examples_id(self) -> str:
        return self.scoring.kept.id


class Engine:
    """Implements interfaces.Ptm over a backend. `clock` gives seconds, from any origin."""

    def __init__(
        self,
        backend: Backend[Any],
        clock: Callable[[], float],
        limits: Limits | None = None,
        *,
        tenants: Iterable[Tenant] = (),
        audit_file: Path | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """With an `audit_file`, tenants go on with what they have used by its records. Raises what AuditLog raises."""
        self._backend = backend
        self._card = backend.describe()
        self._clock = clock
        self._limits = limits or Limits()
        self._tenancies = {tenant.name: self._begin_tenancy(tenant) for tenant in tenants}
        self._audit = AuditLog(audit_file, wall_clock, self._restore)

    def close(self) -> None:
        """Lets another service have the audit file."""
        if self._audit.head.count:
            log.info("the audit log ends with record %s", self._audit.head)
        self._audit.close()

    @property
    def time_to_live_seconds(self) -> float:
        return self._limits.time_to_live_seconds

    @property
    def threads(self) -> int:
        """How many micro-batches are best run at a time."""
        return self._backend.threads

    def _begin_tenancy(self, tenant: Tenant) -> Tenancy:
        return Tenancy.begin(tenant, self._card, self._backend.hidden_size, self._limits)

    def _restore(self, record: Record) -> None:
        if tenancy := self._tenancies.get(record["tenant"]):
            tenancy.account.restore(record)

    def _of(self, tenant: Tenant) -> Tenancy:
        if tenant.name not in self._tenancies:
            self._tenancies[tenant.name] = self._begin_tenancy(tenant)
        return self._tenancies[tenant.name]

    def describe(self, *, tenant: Tenant = OWNER) -> ModelCard:
        return self._of(tenant).card

    def register_task(self, task: TaskSpec, *, tenant: Tenant = OWNER) -> str:
        """Raises InvalidTask, BudgetSpent."""
        tenancy = self._of(tenant)
        check_task(task)
        self._backend.check(task)
        name = digests.task_id(task)
        try:
            shown = tenancy.account.show(self._backend.columns(task))
        except BudgetSpent as error:
            raise self._refusal(tenancy, error, task=name) from None
        if shown:
            try:
                self._audit.append("task", tenant.name, task=name, label_tokens=sorted(shown))
            except StoreError:
                tenancy.account.hide(shown)
                raise
        tenancy.keep(name, task)
        return name

    def register_examples(
        self,
        task_id: str,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None = None,
        labels: npt.NDArray[np.int64] | None = None,
        *,
        tenant: Tenant = OWNER,
    ) -> ExamplesHandle:
        """Raises UnknownTask, InvalidExamples, PromptTooLong, PolicyForbids."""
        tenancy = self._of(tenant)
        known, kept = self._register(tenancy, task_id, ExampleSet(examples, prompt_tokens, perturbation, labels))
        kept.registrations += known
        return ExamplesHandle(kept.id, len(kept.rows), kept.tokens)

    def _register(self, tenancy: Tenancy, task_id: str, examples: ExampleSet) -> tuple[bool, Kept]:
        """Whether they were kept before, and as what they are kept now."""
        task = tenancy.task(task_id)
        output = tenancy.tenant.output
        check_examples(examples, tenancy.card)
        check_filled(task, examples.examples)
        policy.check_labels(output, examples.labels, len(task.classes))
        inputs = digests.contents(examples.examples)
        rows_digests = digests.rows(examples, inputs)
        name = digests.examples_id(task_id, rows_digests, examples.labels)
        tenancy.handles.forget(self._clock())
        if name in tenancy.handles:
            return True, tenancy.handles.get(name, self._clock())
        rows = self._backend.prepare(task, examples.examples, examples.prompt_tokens, examples.perturbation)
        tokens = sum(self._backend.tokens(row) for row in rows)
        if examples.labels is not None:
            try:
                columns = digests.digest(*sorted(self._backend.columns(task)))
                classes = [task.classes[label] for label in examples.labels]
                tenancy.labels.enter(columns, [self._backend.identity(row) for row in rows], classes)
            except PolicyForbids as error:
                raise self._refusal(tenancy, error, task=task_id, examples=name) from None
        kept = Kept(name, task_id, task, rows, rows_digests, examples.labels, tokens)
        tenancy.handles.check(kept)
        self._audit.append("examples", tenancy.tenant.name, task=task_id, examples=name, count=len(rows), tokens=tokens)
        tenancy.handles.put(kept, self._clock())
        return False, kept

    def _refusal(self, tenancy: Tenancy, error: FedbbptError, **names: str) -> FedbbptError:
        """The error, once it is on record. Without room for that it stands all the same."""
        try:
            self._audit.append("refusal", tenancy.tenant.name, status=type(error).__name__, **names)
        except StoreError as problem:
            log.warning("a refusal is not on record: %s", problem)
        return error

    def begin(
        self,
        examples: str | tuple[TaskSpec, ExampleSet],
        prompts: Prompts,
        *,
        fresh: bool = False,
        paid: int = 0,
        tenant: Tenant = OWNER,
    ) -> Begun:
        """Lets a call in: checks it, plans its micro-batches, reserves what they may cost.

        `examples`: a handle, or a task with the examples. `fresh` has the model compute every pair; `paid` is how many
        of them an earlier attempt at the same call was charged for. Raises
        UnknownExamples, UnsupportedPrompt, InvalidTensor, PromptTooLong, MessageTooLarge, BudgetSpent, RateLimited, and
        for examples what registering them raises.
        """
        tenancy = self._of(tenant)
        check_prompts(prompts, tenancy.card)
        policy.check_pictures(tenant, prompts)
        if isinstance(examples, str):
            kept = tenancy.handles.get(examples, self._clock())
        else:
            _, kept = self._register(tenancy, self.register_task(examples[0], tenant=tenant), examples[1])
        pairs = count(prompts) * len(kept.rows)
        if pairs > tenancy.card.max_pairs:
            fix = f"at most {tenancy.card.max_pairs} in one call"
            raise InvalidTensor(f"{pairs} pairs of a prompt and an example", where="prompts", fix=fix)
        self._check_size(pairs * len(kept.task.classes))
        names = digests.prompts(prompts)
        prefix = bytes.fromhex(kept.task_id)
        prompts_digest = digests.digest(*names.ravel().tolist()).hex()
        try:
            tenancy.account.check(max(0, pairs - paid), self._clock())
            scoring = Scoring(self._backend, kept, prompts, names, prefix, tenancy.cache, self._clock, fresh=fresh)
            paid = min(paid, scoring.known_queries)
            reservation = tenancy.account.reserve(scoring.queries - paid, scoring.tokens, self._clock())
        except BudgetSpent as error:
            raise self._refusal(tenancy, error, task=kept.task_id, examples=kept.id, prompts=prompts_digest) from None
        return Begun(scoring, tenancy, reservation, prompts_digest, paid)

    def _check_size(self, numbers: int) -> None:
        if 4 * numbers > self._card.max_message_bytes - ENVELOPE_BYTES:
            raise MessageTooLarge(f"{4 * numbers} bytes of scores", where="prompts", fix="fewer prompts in one call")

    def finish(self, begun: Begun) -> Scored:
        """The answer of a call whose micro-batches have all run. Raises InvalidTensor where scores are not finite."""
        tenancy, scoring = begun.tenancy, begun.scoring
        scores = scoring.scores()
        broken = np.unique(np.argwhere(~np.isfinite(scores))[:, 0])
        usage = self._settle(begun, "InvalidTensor" if broken.size else "ok")
        if broken.size:
            what = f"the scores of prompts {broken.tolist()} are not finite"
            raise InvalidTensor(what, where="prompts", fix="prompts nearer to the model's own embeddings")
        answer = policy.answer(tenancy.tenant.output, scores, scoring.kept.labels)
        return Scored(tenancy.tenant.output, answer, self._card.revision, usage, tenancy.account.budget())

    def give_up(self, begun: Begun) -> Usage:
        """Ends a call that nobody waits for: it pays for what was computed, and that stays known."""
        return self._settle(begun, "given up")

    def _settle(self, begun: Begun, status: str) -> Usage:
        """What is not on record was not used: with no room for the record nothing is counted, and nothing kept."""
        scoring, tenancy = begun.scoring, begun.tenancy
        usage = scoring.usage()
        # Of what an attempt before was charged for, pairs that are known since then cost nothing again.
        paid = min(begun.paid, usage.cached_queries)
        usage = replace(usage, queries=usage.queries - paid, cached_queries=usage.cached_queries - paid)
        usage = tenancy.account.priced(usage)
        try:
            self._audit.append(
                "score",
                tenancy.tenant.name,
                task=scoring.kept.task_id,
                examples=scoring.kept.id,
                prompts=begun.prompts_digest,
                output=tenancy.tenant.output,
                revision=self._card.revision,
                queries=usage.queries,
                cached_queries=usage.cached_queries,
                tokens=usage.tokens,
                compute_seconds=round(usage.compute_seconds, 6),
                cost_micros=usage.cost_micros,
                status=status,
            )
        except StoreError:
            tenancy.account.settle(begun.reservation, scoring.kept.task_id, Usage())
            raise
        scoring.keep(tenancy.cache)
        tenancy.account.settle(begun.reservation, scoring.kept.task_id, usage)
        return usage

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="forward")

    def score(self, examples_id: str, prompts: Prompts, *, tenant: Tenant = OWNER) -> Scored:
        """From `begin` to `finish`, for callers in this process."""
        begun = self.begin(examples_id, prompts, tenant=tenant)
        try:
            for _ in self._pool.map(begun.scoring.run, begun.scoring.batches):
                pass
        except BaseException:
            self.give_up(begun)
            raise
        return self.finish(begun)

    def release(self, examples_id: str, *, tenant: Tenant = OWNER) -> None:
        self._of(tenant).handles.release(examples_id)

    def usage(self, *, tenant: Tenant = OWNER) -> Usage:
        return self._of(tenant).account.usage

    def tasks_usage(self, *, tenant: Tenant = OWNER) -> Mapping[str, Usage]:
        """By task."""
        return self._of(tenant).account.tasks

    def budget(self, *, tenant: Tenant = OWNER) -> Budget:
        return self._of(tenant).account.budget()

    def handles(self, *, tenant: Tenant = OWNER) -> int:
        """How many handles the service keeps for the tenant."""
        handles = self._of(tenant).handles
        handles.forget(self._clock())
        return len(handles)

    @property
    def kept_bytes(self) -> int:
        """Of all tenants' examples."""
        return sum(tenancy.handles.bytes for tenancy in list(self._tenancies.values()))
