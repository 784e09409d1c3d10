"""What the engine keeps of one tenant: its card, account, tasks, examples and, where it gets losses, its labels."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from fedbbpt.errors import UnknownTask
from fedbbpt.ptm.checks import MAX_PAIRS
from fedbbpt.ptm.tenants.accounts import Account
from fedbbpt.ptm.tenants.handles import Handles
from fedbbpt.ptm.tenants.policy import LabelBook
from fedbbpt.ptm.tenants.registry import Tenant
from fedbbpt.ptm.tenants.result_cache import ResultCache
from fedbbpt.types import ModelCard, TaskSpec


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service keeps for each tenant; what was used least recently gives way."""

    tasks: int = 1024
    handles: int = 1024
    bytes: int = 1 << 30
    time_to_live_seconds: float = 3600.0
    """A handle is kept this long after its last use."""
    cache_bytes: int = 1 << 26
    """Of scores."""


@dataclass(slots=True)
class Tenancy:
    """Made by `begin`."""

    tenant: Tenant
    card: ModelCard
    """What the model is to this tenant."""
    account: Account
    handles: Handles
    cache: ResultCache
    """Its own: what is still in it, and what that costs, tells nothing of what others ask."""
    labels: LabelBook
    max_tasks: int
    tasks: OrderedDict[str, TaskSpec] = field(default_factory=OrderedDict)  # least recently registered first

    @staticmethod
    def begin(tenant: Tenant, card: ModelCard, hidden_size: int, limits: Limits) -> "Tenancy":
        handles = Handles(
            max_handles=limits.handles, max_bytes=limits.bytes, time_to_live_seconds=limits.time_to_live_seconds
        )
        path = PurePath(card.model)
        # Where the provider keeps it is the provider's own business.
        model = path.name if path.is_absolute() else card.model
        own = replace(
            card,
            model=model,
            output=tenant.output,
            min_examples=tenant.min_examples,
            price=tenant.price,
            max_pairs=min(card.max_pairs or MAX_PAIRS, MAX_PAIRS),
        )
        account = Account(tenant, tenant.max_label_tokens(hidden_size))
        labels = LabelBook(tenant.min_examples, overlaps=tenant.overlaps)
        return Tenancy(tenant, own, account, handles, ResultCache(limits.cache_bytes), labels, limits.tasks)

    def keep(self, name: str, task: TaskSpec) -> None:
        self.tasks[name] = task
        self.tasks.move_to_end(name)
        while len(self.tasks) > self.max_tasks:
            self.tasks.popitem(last=False)

    def task(self, name: str) -> TaskSpec:
        """Raises UnknownTask."""
        found = self.tasks.get(name)
        if found is None:
            raise UnknownTask(f"no task {name!r}", where="task_id", fix="register the task first")
        return found
