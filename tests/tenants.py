"""A black box in this process as one of its tenants has it."""

from functools import partial
from types import SimpleNamespace
from typing import Any

from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.tenants.registry import Tenant


def ptm_of(engine: Engine, **agreed: Any) -> Any:
    """`interfaces.Ptm`: the engine, asked by a tenant with whom that was agreed."""
    tenant = Tenant(name="tenant", label_tokens="all", **agreed)
    names = ("describe", "register_task", "register_examples", "score", "release", "usage")
    return SimpleNamespace(**{name: partial(getattr(engine, name), tenant=tenant) for name in names})
