"""Without space for a record nothing is charged and nothing is cached: log and account always agree."""

import time
from pathlib import Path

import pytest

from fedbbpt.errors import BudgetSpent, StoreFull
from fedbbpt.host.audit import read_audit
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.types import Examples, TaskSpec, TextPrompts
from tests.unit.ptm.tenants.test_audit import largest_file

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
EXAMPLES = Examples(("who wrote it", "how many people"))
PROMPTS = TextPrompts(("which kind", "what"))
ANNA = Tenant(name="anna", max_queries=6)


def test_unrecorded_call_is_neither_charged_nor_cached(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    engine = Engine(Fake(), time.monotonic, tenants=[ANNA], audit_file=file)
    anna = LocalPtm(engine, ANNA)
    task = engine.register_task(TASK, tenant=ANNA)
    with largest_file(file.stat().st_size), pytest.raises(StoreFull):
        engine.register_examples(task, EXAMPLES, 4, tenant=ANNA)
    assert engine.handles(tenant=ANNA) == 0
    handle = engine.register_examples(task, EXAMPLES, 4, tenant=ANNA).id
    engine.release(handle, tenant=ANNA)
    assert engine.handles(tenant=ANNA) == 0, "the registration that failed is not counted"

    handle = engine.register_examples(task, EXAMPLES, 4, tenant=ANNA).id
    with largest_file(file.stat().st_size), pytest.raises(StoreFull):
        anna.score(handle, PROMPTS)
    assert engine.usage(tenant=ANNA).queries == 0 and engine.budget(tenant=ANNA).queries == 6
    scored = anna.score(handle, PROMPTS)
    assert (scored.usage.queries, scored.usage.cached_queries) == (4, 0), "an uncharged call is not cached"
    with largest_file(file.stat().st_size), pytest.raises(BudgetSpent):
        anna.score(handle, TextPrompts(("one", "two")))  # not StoreFull, which would ask for a retry
    engine.close()
    assert sum(record["queries"] for record in read_audit(file) if record["kind"] == "score") == 4
