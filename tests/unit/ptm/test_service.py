"""The service's rpcs, called without gRPC."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from fedbbpt.errors import BudgetSpent, InvalidInput, UnknownExamples
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.server import serialise
from fedbbpt.ptm.service import PtmService, ServiceLimits
from fedbbpt.ptm.tenants.registry import RegisteredTenant, Tenants
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import Examples, ExampleSet, Output, TaskSpec, TextPrompts
from fedbbpt.wire.messages import ptm_messages

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
EXAMPLES = ExampleSet(Examples(("who was it", "how many films")), 4)
ANNA, BELA = Tenant(name="anna"), Tenant(name="bela")


def request(key: str = "") -> pb.ScoreRequest:
    return ptm_messages.score_request((TASK, EXAMPLES), TextPrompts(("which kind", "what")), key)


@pytest.fixture
def service() -> PtmService:
    return PtmService(Engine(Fake(), lambda: 0.0), Tenants.anyone(), ServiceLimits())


def test_keyed_reply_is_serialised_once_and_sent_unchanged(service: PtmService) -> None:
    """Kills: a reply that is parsed, or serialised again, when a call is repeated."""

    async def play() -> tuple[bytes, bytes]:
        return await service.Score(request("key"), ANNA), await service.Score(request("key"), ANNA)

    first, second = asyncio.run(play())
    service.close()
    assert second is first and serialise(first) is first
    assert pb.ScoreResponse.FromString(first).usage.queries == 4


def test_replies_of_one_tenant_are_unknown_to_another(service: PtmService) -> None:
    async def play() -> tuple[bytes, bytes, pb.GetUsageResponse]:
        first, second = await service.Score(request("key"), ANNA), await service.Score(request("key"), BELA)
        handle = pb.ScoreResponse.FromString(first).examples_id
        await service.Release(pb.ReleaseRequest(examples_id=handle), BELA)
        with pytest.raises(UnknownExamples):
            await service.Score(ptm_messages.score_request(handle, TextPrompts(("a",))), BELA)
        return first, second, await service.GetUsage(pb.GetUsageRequest(), BELA)

    first, second, usage = asyncio.run(play())
    service.close()
    assert second is not first
    assert usage.usage.queries == 4 and usage.usage.cached_queries == 0


def registry(*agreements: Tenant) -> Tenants:
    named = [RegisteredTenant(one, hashlib.sha256(one.name.encode()).hexdigest()) for one in agreements]
    return Tenants(named)


def test_new_agreements_apply_to_the_usage_so_far(tmp_path: Path) -> None:
    """A tenant that is added has the usage of the audit log: its budget does not begin again."""
    audit = tmp_path / "audit.jsonl"
    engine = Engine(Fake(), lambda: 0.0, tenants=[BELA], audit_file=audit)
    first = PtmService(engine, registry(BELA), ServiceLimits())
    asyncio.run(first.Score(request(), BELA))
    first.close()
    engine.close()

    engine = Engine(Fake(), lambda: 0.0, tenants=[ANNA], audit_file=audit)
    service = PtmService(engine, registry(ANNA), ServiceLimits())
    poor, late = ANNA.model_copy(update={"max_queries": 5}), BELA.model_copy(update={"max_queries": 5})

    async def play() -> tuple[pb.GetUsageResponse, pb.GetUsageResponse]:
        await service.Score(request(), ANNA)
        await service.adopt(registry(poor, late))
        with pytest.raises(BudgetSpent, match="max_queries: 4 queries where 1 of 5 are left"):
            await service.Score(request(), poor)
        with pytest.raises(BudgetSpent, match="max_queries: 4 queries where 1 of 5 are left"):
            await service.Score(request(), late)
        return await service.GetUsage(pb.GetUsageRequest(), poor), await service.GetUsage(pb.GetUsageRequest(), late)

    usages = asyncio.run(play())
    service.close()
    engine.close()
    assert [usage.usage.queries for usage in usages] == [4, 4]


def test_an_output_never_changes_while_the_service_runs() -> None:
    """A tenant that gets losses must have given labels with its examples."""
    service = PtmService(Engine(Fake(), lambda: 0.0, tenants=[ANNA]), registry(ANNA), ServiceLimits())
    secretive = ANNA.model_copy(update={"output": Output.LOSS_ONLY})
    with pytest.raises(InvalidInput, match="tenant 'anna': output cannot change while the service runs; start"):
        asyncio.run(service.adopt(registry(secretive)))
    service.close()
