"""Everything that the service keeps in memory for one tenant."""

import math
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from fedbbpt.errors import UnknownTask
from fedbbpt.limits import MAX_PAIRS
from fedbbpt.ptm.tenants.accounts import Account
from fedbbpt.ptm.tenants.handles import Handles
from fedbbpt.ptm.tenants.policy import LabelBook
from fedbbpt.ptm.tenants.result_cache import ResultCache
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.types import Injection, ModelCard, PromptKind, TaskSpec


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits of the state that the service keeps for each tenant. It evicts the least recently used entries."""

    tasks: int = 1024
    bytes: int | None = None
    """Estimated size of the registered examples; None for what the tenant's agreement says."""
    time_to_live_seconds: float = 3600.0
    """Seconds that a handle is kept after its last use."""
    cache_bytes: int = 1 << 26
    """Size of the cached scores."""


NO_LIMITS = Quotas(bytes=1 << 62, time_to_live_seconds=math.inf)
"""The quotas of a PTM that only this process uses."""


@dataclass(slots=True)
class TenantState:
    """One tenant's card, account, tasks, examples, cached scores and, if it gets losses only, labels.

    Nothing is shared between tenants, so neither an answer nor the time that it takes reveals what others asked.
    """

    tenant: Tenant
    card: ModelCard
    """The model's card as this tenant sees it."""
    account: Account
    handles: Handles
    cache: ResultCache
    labels: LabelBook
    max_tasks: int
    tasks: OrderedDict[str, TaskSpec] = field(default_factory=OrderedDict)
    """Tasks by id, least recently registered first."""

    @staticmethod
    def create(tenant: Tenant, card: ModelCard, hidden_size: int, quotas: Quotas) -> "TenantState":
        """Returns the state of a tenant that has used nothing. `card` and `hidden_size` are the backend's."""
        max_bytes = tenant.max_example_bytes if quotas.bytes is None else quotas.bytes
        handles = Handles(max_bytes=max_bytes, time_to_live_seconds=quotas.time_to_live_seconds)
        path, max_label_tokens = PurePath(card.model), tenant.max_label_tokens(hidden_size)
        own = replace(
            card if max_label_tokens is None else _without_class_prompts(card),
            # Tenants need not know in which folder the provider keeps the model.
            model=path.name if path.is_absolute() else card.model,
            output=tenant.output,
            min_examples=tenant.min_examples,
            price=tenant.price,
            max_pairs=min(card.max_pairs or MAX_PAIRS, MAX_PAIRS),
        )
        account = Account(tenant, max_label_tokens)
        labels = LabelBook(tenant.min_examples, overlaps=tenant.overlaps)
        return TenantState(tenant, own, account, handles, ResultCache(quotas.cache_bytes), labels, quotas.tasks)

    def adopt(self, new: "TenantState") -> None:
        """Takes over the agreement of a state of the same tenant, and keeps its own usage, examples and scores."""
        self.tenant, self.card = new.tenant, new.card
        self.account.adopt(new.account)

    def keep_task(self, task_id: str, task: TaskSpec) -> None:
        """Remembers a task, and forgets the one that was registered longest ago if there are too many.

        A task that is registered again stays the same object, under which a backend may keep what it computes.
        """
        self.tasks.setdefault(task_id, task)
        self.tasks.move_to_end(task_id)
        while len(self.tasks) > self.max_tasks:
            self.tasks.popitem(last=False)

    def task(self, task_id: str) -> TaskSpec:
        """Returns a registered task. Raises UnknownTask."""
        found = self.tasks.get(task_id)
        if found is None:
            raise UnknownTask(f"no task {task_id!r}", where="task_id", fix="register the task first")
        return found


def _without_class_prompts(card: ModelCard) -> ModelCard:
    """Returns the card for a tenant whose label tokens are limited: a prompt in the class texts makes K new columns."""
    injections = card.injections - {Injection.CLASS}
    kinds = card.prompt_kinds if injections else card.prompt_kinds - {PromptKind.LATENT, PromptKind.SOFT}
    return replace(card, injections=injections, prompt_kinds=kinds)
